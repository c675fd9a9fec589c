package up

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/knarr-dev/knarr/cmd/knarr/parts"
	"github.com/knarr-dev/knarr/kubelet/cgroup"
	"github.com/knarr-dev/knarr/kubelet/containerd"
	"github.com/knarr-dev/knarr/kubelet/image"
)

// The files of a node by which its processes are found.
const (
	holdFile  = "hold"  // the program that holds the namespaces open
	agentFile = "agent" // its pid file ends in .pid, as the holder's does
)

// start starts a node's processes, those of them that do not run.
func (m *member) start(plan *Options) error {
	if err := m.credentials(plan); err != nil {
		return err
	}
	host, err := plan.address()
	if err != nil {
		return err
	}
	at, err := netip.ParseAddr(host)
	if err != nil {
		return err
	}
	holder, ok := m.running(holdFile)
	if !ok {
		if holder, err = m.hold(); err != nil {
			return err
		}
	}
	if err := m.connect(holder, at); err != nil {
		return err
	}
	if m.Stopped {
		m.Stopped = false
		if err := m.write(); err != nil {
			return err
		}
	}
	if _, ok := m.running(agentFile); ok {
		return nil
	}
	return m.spawn()
}

// hold starts the process that holds the node's namespaces open, so that what
// runs in them can end and start again.
func (m *member) hold() (pid int, err error) {
	program := m.file(holdFile)
	if err := os.WriteFile(program, image.PauseProgram(), 0o700); err != nil {
		return 0, fmt.Errorf("make namespaces: %w", err)
	}
	cmd := exec.Command(program)
	// Unshare, unlike clone, has mounts stay inside by itself.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS}
	return m.launch(cmd, holdFile)
}

// spawn starts the node's agent: this program, inside the node.
func (m *member) spawn() error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start the node's agent: %w", err)
	}
	log, err := (&dir{path: m.file()}).openLog()
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the child has its own
	cmd := exec.Command(exe, "node", "agent", m.Name, "--data-dir="+m.cluster.path)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	_, err = m.launch(cmd, agentFile)
	return err
}

// launch starts a process and notes its pid.
func (m *member) launch(cmd *exec.Cmd, name string) (pid int, err error) {
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start node %s: %w", m.Name, err)
	}
	go func() { _ = cmd.Wait() }() // so that it does not stay a zombie
	pid = cmd.Process.Pid
	return pid, os.WriteFile(m.file(name+".pid"), []byte(strconv.Itoa(pid)), 0o600)
}

// running is a process of the node that was started under a name.
func (m *member) running(name string) (pid int, ok bool) {
	b, err := os.ReadFile(m.file(name + ".pid"))
	if err != nil {
		return 0, false
	}
	if pid, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
		return 0, false
	}
	// The number may be another process's by now.
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return 0, false
	}
	if name == holdFile {
		return pid, bytes.HasPrefix(cmdline, []byte(m.file(holdFile)+"\x00"))
	}
	return pid, bytes.Contains(cmdline, []byte("\x00agent\x00"+m.Name+"\x00--data-dir="+m.cluster.path+"\x00"))
}

// end ends all processes of a node and takes away what they have made, but
// for its files.
func (m *member) end(ctx context.Context) error {
	if pid, ok := m.running(agentFile); ok {
		if err := endProcess(ctx, pid); err != nil {
			return fmt.Errorf("end the agent of node %s: %w", m.Name, err)
		}
	}
	var errs []error
	if cfg, err := m.containerd(); err != nil {
		errs = append(errs, err)
	} else if _, err := os.Stat(cfg.Dir); err == nil {
		errs = append(errs, containerd.Stop(ctx, *cfg))
	}
	// Networks, mounts and programs go with the namespaces.
	if pid, ok := m.running(holdFile); ok {
		errs = append(errs, endProcess(ctx, pid))
	}
	groups, err := cgroup.New(m.cgroup())
	if err == nil {
		err = groups.Remove(ctx)
	}
	errs = append(errs, err, m.removeUnified(), m.disconnect(), parts.RemoveProxy(ctx, m.proxy(&Options{})))
	for _, dir := range []string{m.file("kubelet"), m.file("logs"), m.file("cni")} {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// containerd is the configuration of the node's own containerd.
func (m *member) containerd() (*containerd.Config, error) {
	cfg, err := ownContainerd(&dir{path: m.file()})
	if err == nil {
		cfg.Registries = m.cluster.file("registries") // one for all nodes
	}
	return cfg, err
}

// unified is the node's group in the hierarchy of version 2, whose processes
// the node's service proxy serves; empty where there is none.
func (m *member) unified() string {
	for _, mount := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if _, err := os.Stat(filepath.Join(mount, "cgroup.procs")); err == nil {
			if _, err := os.Stat(filepath.Join(mount, "cgroup.controllers")); err == nil {
				return filepath.Join(mount, m.cgroup())
			}
		}
	}
	return ""
}

// agentGroup is the group in which the node's agent is: a leaf, as version 2
// demands.
const agentGroup = "agent"

// removeUnified removes the node's group where limits are elsewhere.
func (m *member) removeUnified() error {
	group := m.unified()
	if group == "" {
		return nil
	}
	for _, g := range []string{filepath.Join(group, agentGroup), group} {
		if err := os.Remove(g); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the group of node %s: %w", m.Name, err)
		}
	}
	return nil
}

// endProcess ends a process, with force where it does not by itself.
func endProcess(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(fd) }()
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end process %d: %w", pid, err)
		}
		if ended, err := waitEnd(ctx, fd); ended || err != nil {
			return err
		}
	}
	return fmt.Errorf("process %d does not end", pid)
}
