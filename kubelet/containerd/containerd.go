// Package containerd runs a containerd of the kubelet's own, for machines that
// have no container runtime running.
//
// The daemon outlives the process that started it, and so do its containers:
// whoever starts next finds it by its pid file and takes it over. Only Remove
// ends it.
package containerd

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A Config says which containerd to run and where it keeps everything.
type Config struct {
	Binary  string // the shim is looked for beside it, then in PATH
	Dir     string // for all its files, its socket included; short, as paths of sockets must be
	CNIBin  string
	CNIConf string
	Sandbox string // the image that sandboxes are made of
	// Registries is a directory whose subdirectories say how to reach a
	// registry: HOST/hosts.toml. Changes count from the next pull. It is in Dir
	// where this is empty.
	Registries string
}

const (
	startLimit = time.Minute
	stopLimit  = 10 * time.Second
	maxSocket  = 107 // bytes that the kernel takes for the path of a socket
)

// Endpoint is where CRI is served.
func (c Config) Endpoint() string { return "unix://" + c.socket() }

func (c Config) registries() string { return cmp.Or(c.Registries, filepath.Join(c.Dir, "certs.d")) }

func (c Config) socket() string { return filepath.Join(c.Dir, "containerd.sock") }
func (c Config) file() string   { return filepath.Join(c.Dir, "config.toml") }
func (c Config) pid() string    { return filepath.Join(c.Dir, "containerd.pid") }

// A Daemon is a containerd that runs.
type Daemon struct {
	config Config
	pidfd  int
}

// Start returns when containerd answers CRI calls: the one that runs already
// for this directory, if it has the same configuration, or else a new one.
func Start(ctx context.Context, c Config) (*Daemon, error) {
	if n := len(c.socket()) + len(".ttrpc"); n > maxSocket {
		return nil, fmt.Errorf("start containerd: the path %s is too long for a socket", c.socket())
	}
	for _, dir := range []string{c.Dir, c.registries()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("start containerd: %w", err)
		}
	}
	text, err := c.text()
	if err != nil {
		return nil, err
	}
	had, _ := os.ReadFile(c.file()) // none is another
	pid, runs := c.running()
	if runs && !bytes.Equal(had, text) {
		if err := end(ctx, pid, stopLimit); err != nil {
			return nil, fmt.Errorf("restart containerd: %w", err)
		}
		runs = false
	}
	if !runs {
		if err := os.WriteFile(c.file(), text, 0o600); err != nil {
			return nil, fmt.Errorf("start containerd: %w", err)
		}
		if pid, err = c.spawn(); err != nil {
			return nil, fmt.Errorf("start containerd: %w", err)
		}
	}
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("start containerd: %w; its log is %s", err, c.log())
	}
	d := &Daemon{c, fd}
	if err := d.ready(ctx); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return d, nil
}

func (c Config) log() string { return filepath.Join(c.Dir, "containerd.log") }

// spawn starts the process, in a session of its own so that no signal meant
// for this process reaches it.
func (c Config) spawn() (pid int, err error) {
	log, err := os.OpenFile(c.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { _ = log.Close() }() // the child has its own
	cmd := exec.Command(c.Binary, "--config", c.file())
	cmd.Dir = c.Dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(c.Binary)+":"+os.Getenv("PATH"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() { _ = cmd.Wait() }() // so that it does not stay a zombie
	return cmd.Process.Pid, os.WriteFile(c.pid(), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600)
}

// running is the process that runs for this directory.
func (c Config) running() (pid int, ok bool) {
	b, err := os.ReadFile(c.pid())
	if err != nil {
		return 0, false
	}
	if pid, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
		return 0, false
	}
	// The number may be another process's by now.
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return pid, err == nil && bytes.Contains(cmdline, []byte("\x00"+c.file()+"\x00"))
}

// ready waits until CRI answers, or the process is gone.
func (d *Daemon) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	gone := make(chan error, 1)
	go func() { gone <- d.Wait(ctx) }()
	conn, err := grpc.NewClient(d.config.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.2, MaxDelay: 100 * time.Millisecond}}))
	if err != nil {
		return fmt.Errorf("reach containerd: %w", err)
	}
	defer func() { _ = conn.Close() }()
	answer := make(chan error, 1)
	go func() {
		for {
			// Until all its plugins are up it refuses the call.
			_, err := runtimeapi.NewRuntimeServiceClient(conn).Version(ctx, &runtimeapi.VersionRequest{}, grpc.WaitForReady(true))
			if err == nil || ctx.Err() != nil {
				answer <- err
				return
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	select {
	case err = <-answer:
	case err = <-gone:
		if err == nil {
			err = errors.New("it ended")
		}
	}
	if err != nil {
		return fmt.Errorf("wait for containerd: %w; its log is %s", err, d.config.log())
	}
	return nil
}

// Wait returns nil when the daemon has ended, and an error when ctx has.
func (d *Daemon) Wait(ctx context.Context) error {
	// A pidfd is readable when its process is gone: waiting costs nothing.
	fd, err := unix.FcntlInt(uintptr(d.pidfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("wait for containerd: %w", err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer func() { _ = f.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Now()) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for containerd: %w", err)
	}
	err = raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err == nil && n > 0
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// Run keeps a containerd running until ctx ends: one that ends before is
// started again. It leaves the last one running.
func (d *Daemon) Run(ctx context.Context) error {
	defer func() { _ = unix.Close(d.pidfd) }()
	for {
		if err := d.Wait(ctx); err != nil {
			return err
		}
		next, err := Start(ctx, d.config)
		if ctx.Err() != nil {
			return ctx.Err()
		} else if err != nil {
			return err
		}
		_ = unix.Close(d.pidfd)
		d.pidfd = next.pidfd
	}
}

// end has a process end, with force where it does not by itself.
func end(ctx context.Context, pid int, limit time.Duration) error {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil
	} else if err != nil {
		return fmt.Errorf("find process %d: %w", pid, err)
	}
	d := &Daemon{pidfd: fd}
	defer func() { _ = unix.Close(fd) }()
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
		limited, cancel := context.WithTimeout(ctx, limit)
		err = d.Wait(limited)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			break // it had no time to end by itself
		}
	}
	return fmt.Errorf("end process %d: %w", pid, err)
}
