package up

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/knarr-dev/knarr/kubelet/containerd"
	"github.com/knarr-dev/knarr/kubelet/cri"
	"github.com/knarr-dev/knarr/kubelet/image"
)

// cgroupRoot is the group below which all of a cluster's are.
func (d *dir) cgroupRoot() string { return "/" + d.id() }

// cniDirs are where CNI plugins are looked for.
var cniDirs = []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"}

// A runtime is what runs containers: a containerd of our own, or another
// that is there already.
type runtime struct {
	endpoint string
	own      *containerd.Config // nil where it is another's
}

// runtime finds out what is to run containers here. It starts nothing.
func (c *cluster) runtime(ctx context.Context) (*runtime, error) {
	if c.Runtime != "" {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", strings.TrimPrefix(c.Runtime, "unix://"))
		if err != nil {
			return nil, fmt.Errorf("no runtime answers at %s: start it, or leave --container-runtime-endpoint away for a containerd of knarr's own: %w", c.Runtime, err)
		}
		_ = conn.Close() // nothing was said
		return &runtime{endpoint: c.Runtime}, nil
	}
	cfg, err := ownContainerd(c.dir)
	if err != nil {
		return nil, err
	}
	return &runtime{endpoint: cfg.Endpoint(), own: cfg}, nil
}

// ownContainerd is the configuration of a cluster's own containerd.
func ownContainerd(d *dir) (*containerd.Config, error) {
	binary, err := findProgram("containerd")
	if err != nil {
		return nil, errors.New("no containerd: run `make tools` (or install containerd 2.1 or later), or name another runtime with --container-runtime-endpoint")
	}
	if _, err := exec.LookPath("runc"); err != nil {
		return nil, errors.New("no runc, which starts containers: install the package runc")
	}
	for _, cni := range cniDirs {
		if _, err := os.Stat(filepath.Join(cni, "bridge")); err == nil {
			return &containerd.Config{
				Binary: binary, Dir: d.containerdDir(), CNIBin: cni, CNIConf: d.cniConf(), Sandbox: image.Pause, Registries: d.file("registries"),
			}, nil
		}
	}
	return nil, fmt.Errorf("no CNI plugins in any of %v: install the package containernetworking-plugins", cniDirs)
}

func (d *dir) cniConf() string { return d.file("cni", "net.d") }

// findProgram looks for a program beside this one, then in PATH.
func findProgram(name string) (string, error) {
	if exe, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(exe), name)
		if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() {
			return beside, nil
		}
	}
	return exec.LookPath(name)
}

// run keeps the runtime running until ctx ends, and calls ready when it has
// the images that need no registry. It leaves it running.
func (r *runtime) run(ctx context.Context, ready func()) error {
	var daemon *containerd.Daemon
	if r.own != nil {
		var err error
		if daemon, err = containerd.Start(ctx, *r.own); err != nil {
			return ignoreEnd(ctx, err)
		}
	}
	if err := r.importImages(ctx); err != nil {
		return ignoreEnd(ctx, err)
	}
	ready()
	if daemon == nil {
		return nil
	}
	return ignoreEnd(ctx, daemon.Run(ctx))
}

// importImages gives the runtime the images that are made here.
func (r *runtime) importImages(ctx context.Context) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("make images: %w", err)
	}
	list, err := image.Builtins(exe)
	if err != nil {
		return err
	}
	client, err := cri.Dial(r.endpoint)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // nothing is lost with it
	return image.Import(ctx, client.Conn(), list)
}
