//go:build linux && (amd64 || arm64)

package image

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestPauseIsExecutable(t *testing.T) {
	p := pauseProgram()
	f, err := elf.NewFile(bytes.NewReader(p))
	if err != nil {
		t.Fatal(err)
	}
	if len(p) < 200 || len(p) > 600 || f.Entry != 0x400078 || f.Progs[0].Filesz != uint64(len(p)) {
		t.Errorf("%d bytes, %+v", len(p), f.FileHeader)
	}
}

// TestPauseAsInit runs it as the first process of a PID namespace.
func TestPauseAsInit(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to make a PID namespace")
	}
	path := filepath.Join(t.TempDir(), "pause")
	if err := os.WriteFile(path, pauseProgram(), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, end := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		cmd := exec.CommandContext(t.Context(), path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for _, other := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGCHLD, syscall.SIGALRM} {
			if err := cmd.Process.Signal(other); err != nil {
				t.Fatal(err)
			}
		}
		reaps(t, cmd.Process.Pid)
		if err := cmd.Process.Signal(end); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil || cmd.ProcessState.ExitCode() != 0 {
			t.Errorf("ended by %v: %v", end, err)
		}
	}
}

// reaps leaves an orphan to the process and waits until it is gone.
func reaps(t *testing.T, pid int) {
	t.Helper()
	// The shell ends before its child, which the namespace's first process inherits.
	out, err := exec.CommandContext(t.Context(), "nsenter", "-t", fmt.Sprint(pid), "-p", "sh", "-c", "sh -c 'sleep 0.1' >/dev/null 2>&1 & exit 0").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	children := fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)
	seen := false
	for deadline := time.Now().Add(10 * time.Second); ; {
		b, err := os.ReadFile(children)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if left := strings.TrimSpace(string(b)); left != "" {
			seen = true
		} else if seen {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("children %q after ten seconds, seen %v", b, seen)
		}
	}
}
