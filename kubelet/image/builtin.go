//go:build linux && (amd64 || arm64)

package image

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// The names of the images that need no registry.
const (
	Pause   = "knarr.local/pause:latest"
	Demo    = "knarr.local/demo:latest"
	Busybox = "knarr.local/busybox:latest"
)

// madeHere tells whether an image is one of those that are made on the
// machine: what is there of them is always the newest, and no registry has it.
func madeHere(name string) bool { return strings.HasPrefix(name, "knarr.local/") }

// busyboxPath is where Debian's busybox-static puts its program.
const busyboxPath = "/bin/busybox"

// A Builtin is an image that is made on this machine.
type Builtin struct {
	Name string
	// mark changes when the image would; it is known without making the image.
	mark string
	make func(context.Context) (assembled, error)
}

// Builtins lists the images that can be made here: pause, demo, which is the
// program at executable, and busybox where the host has a static one.
func Builtins(executable string) ([]Builtin, error) {
	list := []Builtin{{
		Name: Pause,
		mark: "pause " + runtime.GOARCH + " " + fmt.Sprint(len(pauseProgram())),
		make: func(context.Context) (assembled, error) {
			return assemble([]file{{Name: "pause", Mode: 0o755, Data: pauseProgram()}}, []string{"/pause"}, nil)
		},
	}}
	mark, err := fingerprint(executable)
	if err != nil {
		return nil, err
	}
	list = append(list, Builtin{
		Name: Demo, mark: mark,
		make: func(context.Context) (assembled, error) {
			files := append(skeleton(), file{Name: "knarr", Mode: 0o755, Path: executable})
			return assemble(files, []string{"/knarr", "demo"}, nil)
		},
	})
	if mark, err := fingerprint(busyboxPath); err == nil {
		list = append(list, Builtin{Name: Busybox, mark: mark + " sh", make: busybox})
	}
	return list, nil
}

// fingerprint tells one version of a program from another without reading it.
func fingerprint(name string) (string, error) {
	info, err := os.Stat(name)
	if err != nil {
		return "", fmt.Errorf("make image: %w", err)
	}
	return fmt.Sprintf("%s %d %d", name, info.Size(), info.ModTime().UnixNano()), nil
}

// skeleton is what programs expect to find in any file system.
func skeleton() []file {
	return []file{
		{Name: "bin/", Mode: 0o755},
		{Name: "etc/", Mode: 0o755},
		{Name: "etc/group", Mode: 0o644, Data: []byte("root:x:0:\nnogroup:x:65534:\n")},
		{Name: "etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")},
		{Name: "root/", Mode: 0o700},
		{Name: "tmp/", Mode: 0o777 | fs.ModeSticky},
		{Name: "var/", Mode: 0o755},
	}
}

// busybox is the host's busybox with a link for each of its applets.
func busybox(ctx context.Context) (assembled, error) {
	out, err := exec.CommandContext(ctx, busyboxPath, "--list").Output()
	if err != nil {
		return assembled{}, fmt.Errorf("list busybox's applets: %w", err)
	}
	files := append(skeleton(),
		file{Name: "usr/", Mode: 0o755},
		file{Name: "sbin", Link: "bin"}, file{Name: "usr/bin", Link: "../bin"}, file{Name: "usr/sbin", Link: "../bin"},
		file{Name: "bin/busybox", Mode: 0o755, Path: busyboxPath})
	for name := range strings.FieldsSeq(string(out)) {
		if name != "busybox" {
			files = append(files, file{Name: "bin/" + name, Link: "busybox"})
		}
	}
	return assemble(files, nil, []string{"sh"})
}
