package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// patience is how long a process may take to serve, or to end.
const patience = 30 * time.Second

// A process is one that this command has started.
type process struct {
	name  string
	cmd   *exec.Cmd
	log   string
	ended chan struct{} // closed when it has, and err is set
	err   error
}

// launch starts a program that writes its log to dir.
func launch(dir, name string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), ended: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// A group of its own, so that ^C is for this command alone; and the end
	// should this command be killed.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	err = p.cmd.Start()
	if err = errors.Join(err, log.Close()); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// wait waits until ready is content with the process.
func (p *process) wait(ctx context.Context, ready func() error) error {
	deadline := time.After(patience)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.ended:
			return fmt.Errorf("%s has ended: %w\n%s", p.name, p.err, p.tail())
		case <-deadline:
			return fmt.Errorf("%s does not serve after %v: %w\n%s", p.name, patience, err, p.tail())
		case <-time.After(time.Millisecond):
		}
	}
}

// alive is an error where the process has ended before its time.
func (p *process) alive() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s has ended: %w\n%s", p.name, p.err, p.tail())
	default:
		return nil
	}
}

// tail is the end of the process's log.
func (p *process) tail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	const most = 2000
	return string(b[max(0, len(b)-most):])
}

// stop ends the process, by force if it must be.
func (p *process) stop() error {
	if err := p.alive(); err != nil {
		return err
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("end %s: %w", p.name, err)
	}
	select {
	case <-p.ended:
		// etcd ends by the signal that it was sent.
		if state, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); p.err != nil && (!ok || state.Signal() != syscall.SIGTERM) {
			return fmt.Errorf("end %s: %w\n%s", p.name, p.err, p.tail())
		}
		return nil
	case <-time.After(patience):
		err := fmt.Errorf("%s does not end, and was killed", p.name)
		err = errors.Join(err, p.cmd.Process.Kill())
		<-p.ended
		return err
	}
}

// tick is the unit of times in /proc, the same on all of Linux.
const tick = 10 * time.Millisecond

// cpu is the time that the process has had a processor.
func (p *process) cpu() (time.Duration, error) {
	f, err := p.stat()
	if err != nil {
		return 0, err
	}
	var ticks int64
	for _, field := range f[11:13] { // utime and stime
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read CPU time of %s: %w", p.name, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

// resident is how much memory the process has, in bytes.
func (p *process) resident() (int64, error) {
	f, err := p.stat()
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseInt(f[21], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read memory of %s: %w", p.name, err)
	}
	return pages * int64(os.Getpagesize()), nil
}

// stat are the fields of /proc/PID/stat behind the program's name, the first
// of which is the process's state.
func (p *process) stat() ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return nil, fmt.Errorf("read state of %s: %w", p.name, err)
	}
	text := string(b)
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) < 22 {
		return nil, fmt.Errorf("read state of %s: cannot understand %q", p.name, text)
	}
	return f, nil
}

// address is a free address on loopback.
func address() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

// tools sees to it that the programs are there.
func (o options) tools(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(o.bin, "knarr")); err != nil {
		return fmt.Errorf("needs knarr, which `make build` makes: %w", err)
	}
	etcd := filepath.Join(o.bin, "etcd")
	if _, err := os.Stat(etcd); err == nil {
		return nil
	}
	fmt.Fprintln(os.Stderr, "building", etcd)
	out, err := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w", "-o", etcd, "go.etcd.io/etcd/server/v3").CombinedOutput()
	if err != nil {
		return fmt.Errorf("build etcd: %w\n%s", err, out)
	}
	return nil
}
