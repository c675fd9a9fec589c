//go:build integration

package containerd

import (
	"cmp"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// config is for a containerd in a directory of the test's, the binary that
// KNARR_CONTAINERD names or the one in PATH.
func config(t *testing.T) Config {
	binary, err := exec.LookPath(cmp.Or(os.Getenv("KNARR_CONTAINERD"), "containerd"))
	if err != nil || os.Getuid() != 0 {
		t.Skipf("needs root and containerd: %v", err)
	}
	dir, err := os.MkdirTemp("", "ctrd") //nolint:usetesting // t.TempDir's paths are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Binary: binary, Dir: dir, CNIBin: "/usr/lib/cni", CNIConf: filepath.Join(dir, "cni"), Sandbox: "none"}
	t.Cleanup(func() {
		if err := Remove(context.Background(), c); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", dir, err)
		}
	})
	return c
}

func TestAdopt(t *testing.T) {
	c := config(t)
	first, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	pid, ok := c.running()
	if !ok {
		t.Fatal("it does not run")
	}
	if _, err := Start(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if again, _ := c.running(); again != pid {
		t.Errorf("%d was replaced by %d", pid, again)
	}
	c.CNIConf += "2"
	if _, err := Start(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if again, _ := c.running(); again == pid {
		t.Error("the one with another configuration was taken over")
	}
	if err := first.Wait(t.Context()); err != nil {
		t.Errorf("wait for one that has ended: %v", err)
	}
}

func TestRunStartsAgain(t *testing.T) {
	c := config(t)
	d, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	pid, _ := c.running()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(50 * time.Millisecond) {
		if again, ok := c.running(); ok && again != pid {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("not started again")
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, ok := c.running(); !ok {
		t.Error("it ended with its keeper")
	}
}

func TestPathTooLong(t *testing.T) {
	_, err := Start(t.Context(), Config{Dir: "/tmp/" + strings.Repeat("x", 120)})
	if err == nil || !strings.Contains(err.Error(), "too long") {
		t.Error(err)
	}
}
