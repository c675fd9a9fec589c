package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Remove is Stop, and removes containerd's directory.
func Remove(ctx context.Context, c Config) error {
	if err := Stop(ctx, c); err != nil {
		return err
	}
	return os.RemoveAll(c.Dir)
}

// Stop ends containerd and all that it runs: no process, mount or network
// namespace of it is left. Images stay. It starts containerd once more where
// it does not run but has left something behind.
func Stop(ctx context.Context, c Config) error {
	if _, err := os.Stat(c.Dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	d, err := Start(ctx, c)
	if err != nil {
		return fmt.Errorf("remove pods: %w", err)
	}
	_ = unix.Close(d.pidfd)
	// What does not go by the runtime's own doing goes by ours.
	graceful := Empty(ctx, c.Endpoint())
	if pid, ok := c.running(); ok {
		if err := end(ctx, pid, stopLimit); err != nil {
			return errors.Join(graceful, err)
		}
	}
	if err := c.endShims(ctx); err != nil {
		return errors.Join(graceful, err)
	}
	// An error of the runtime's is of no interest any more: nothing runs.
	if err := unmountBelow(c.Dir); err != nil {
		return errors.Join(graceful, err)
	}
	return nil
}

// Empty removes all pods of a runtime.
func Empty(ctx context.Context, endpoint string) error {
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("reach containerd: %w", err)
	}
	defer func() { _ = conn.Close() }()
	cri := runtimeapi.NewRuntimeServiceClient(conn)
	list, err := cri.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return fmt.Errorf("list sandboxes: %w", err)
	}
	var all error
	for _, s := range list.GetItems() {
		_, err := cri.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: s.GetId()})
		if err == nil {
			_, err = cri.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: s.GetId()})
		}
		all = errors.Join(all, err)
	}
	return all
}

// endShims ends the shims that are left: each names our socket as the address
// to report to.
func (c Config) endShims(ctx context.Context) error {
	mark := []byte("\x00" + c.socket() + "\x00")
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return fmt.Errorf("find shims: %w", err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || !bytes.Contains(cmdline, []byte("containerd-shim")) || !bytes.Contains(cmdline, mark) {
			continue
		}
		if err := end(ctx, pid, stopLimit); err != nil {
			return err
		}
	}
	return nil
}

// unmountBelow unmounts all below dir, the innermost first.
func unmountBelow(dir string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("find mounts: %w", err)
	}
	var points []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 {
			if p := unescape(f[4]); strings.HasPrefix(p, dir+"/") {
				points = append(points, p)
			}
		}
	}
	for _, p := range slices.Backward(points) {
		if err := unix.Unmount(p, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", p, err)
		}
	}
	return nil
}

// unescape reads a path as the kernel writes it: with \040 for a space.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
