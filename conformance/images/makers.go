package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/knarr-dev/knarr/conformance/images/layer"
)

// errCompiler is what somebody without a C compiler has to do.
var errCompiler = errors.New("no C compiler, make or static C library here: apt-get install gcc make libc6-dev bzip2")

// busybox makes the lowest layer of most images: busybox, a link to it by the
// name of each of its programs, and the links into /usr.
//
// It is built from source as it comes: the shell of Debian's own build takes
// variables out of the environment whose names a shell could not have, and
// specs look for such.
func busybox(ctx context.Context, k *kitchen, t *layer.Tree) error {
	program, err := k.busybox(ctx)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	names, err := output(exec.CommandContext(ctx, program, "--list"))
	if err != nil {
		return err
	}
	t.Merge()
	t.File("usr/bin/busybox", 0o755, data)
	for name := range strings.FieldsSeq(names) {
		if name != "busybox" {
			t.Link("usr/bin/"+name, "busybox")
		}
	}
	return nil
}

// settings are what busybox's default configuration is changed in: it needs
// no libraries, and its traffic shaper does not build with today's kernels' headers.
var settings = map[string]string{"# CONFIG_STATIC is not set": "CONFIG_STATIC=y", "CONFIG_TC=y": "# CONFIG_TC is not set"}

// busybox builds it, unless that was done before from the same source.
func (k *kitchen) busybox(ctx context.Context) (string, error) {
	archive, err := k.debian.Sources(ctx, "busybox", filepath.Join(k.cache, "sources"))
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	if err := hash(sum, archive); err != nil {
		return "", err
	}
	fmt.Fprint(sum, settings)
	built := filepath.Join(k.cache, "programs", "busybox-"+hex.EncodeToString(sum.Sum(nil))[:16])
	if _, err := os.Stat(built); err == nil {
		return built, nil
	}
	for _, tool := range []string{"cc", "make"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", errCompiler
		}
	}
	dir := filepath.Join(k.cache, "busybox")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755), os.MkdirAll(filepath.Dir(built), 0o755)); err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(dir) }() // else the next time
	if _, err := output(exec.CommandContext(ctx, "tar", "-xf", archive, "-C", dir, "--strip-components=1")); err != nil {
		return "", fmt.Errorf("unpack %s: %w", archive, err)
	}
	if err := makeBusybox(ctx, dir); err != nil {
		return "", fmt.Errorf("build busybox: %w", err)
	}
	return built, os.Rename(filepath.Join(dir, "busybox"), built)
}

func makeBusybox(ctx context.Context, dir string) error {
	run := func(args ...string) error {
		cmd := exec.CommandContext(ctx, "make", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "KCONFIG_NOTIMESTAMP=1", "SOURCE_DATE_EPOCH=0", "LC_ALL=C")
		cmd.Stdin = strings.NewReader(strings.Repeat("\n", 2000)) // the default, whatever it asks
		_, err := output(cmd)
		return err
	}
	if err := run("defconfig"); err != nil {
		return err
	}
	file := filepath.Join(dir, ".config")
	config, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text := string(config)
	for from, to := range settings {
		text = strings.Replace(text, from+"\n", to+"\n", 1)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	if err := run("oldconfig"); err != nil {
		return err
	}
	return run(fmt.Sprintf("-j%d", runtime.NumCPU()), "busybox")
}

// pauseProgram compiles what holds a pod's namespaces open.
func pauseProgram(ctx context.Context, k *kitchen, t *layer.Tree) error {
	if _, err := exec.LookPath("cc"); err != nil {
		return errCompiler
	}
	dir, err := k.module(ctx, upstream)
	if err != nil {
		return err
	}
	out := filepath.Join(k.cache, "programs", "pause")
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "cc", "-Os", "-Wall", "-static", "-s", "-Wl,--build-id=none", "-DVERSION=v3.10.2", "-o", out, "pause.c")
	cmd.Dir = filepath.Join(dir, "build", "pause", "linux")
	if _, err := output(cmd); err != nil {
		return fmt.Errorf("compile pause: %w", err)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		return err
	}
	t.File("pause", 0o755, data)
	return nil
}

// fakeRegistry lays out what agnhost's own registry serves: the pause image,
// as pause:testing.
func fakeRegistry(ctx context.Context, k *kitchen, t *layer.Tree) error {
	img, err := k.image(ctx, recipe{name: "pause:testing", parts: []string{"pause"}, config: pauseConfig})
	if err != nil {
		return err
	}
	const root = "var/registry/pause/"
	file := func(kind string, hash v1.Hash, data []byte) {
		t.File(filepath.Join(root, kind, hash.Algorithm, hash.Hex[:2], hash.Hex, "data"), 0o644, data)
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	file("manifests", digest, manifest)
	t.File(root+"manifests/testing", 0o644, []byte(digest.String()+"\n"))
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	configHash, err := img.ConfigName()
	if err != nil {
		return err
	}
	file("blobs", configHash, config)
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		hash, data, err := blob(l)
		if err != nil {
			return err
		}
		file("blobs", hash, data)
	}
	return nil
}
