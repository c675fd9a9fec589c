//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knarr-dev/knarr/kubelet/cgroup"
	"github.com/knarr-dev/knarr/kubelet/containerd"
	"github.com/knarr-dev/knarr/kubelet/cri"
	"github.com/knarr-dev/knarr/kubelet/image"
)

// parts is a cluster of five processes, on an etcd and a containerd that
// were there before them.
type parts struct {
	runtime containerd.Config
	procs   map[string]*exec.Cmd
}

// Names outside of the data directory.
const (
	partsNode   = "parts-node"
	partsCgroup = "/knarr-parts"
	partsBridge = "knarr-parts"
	partsPins   = "/sys/fs/bpf/knarr-parts"
	etcdURL     = "http://127.0.0.1:17379"
)

func file(name ...string) string { return filepath.Join(append([]string{dataDir}, name...)...) }

// command is how a part is run.
func (p *parts) command(part string) []string {
	knarr := filepath.Join(bin, "knarr")
	config := func(who string) string { return "--kubeconfig=" + file("pki", who+".kubeconfig") }
	pki := func(name string) string { return file("pki", name) }
	switch part {
	case "etcd":
		return []string{
			filepath.Join(bin, "etcd"), "--data-dir=" + file("etcd"), "--listen-client-urls=" + etcdURL, "--advertise-client-urls=" + etcdURL,
			"--listen-peer-urls=http://127.0.0.1:17380", "--log-level=warn",
		}
	case "apiserver":
		return []string{
			knarr, "apiserver", "--etcd-servers=" + etcdURL, "--secure-port=" + securePort, "--service-cluster-ip-range=10.97.0.0/16",
			"--client-ca-file=" + pki("ca.crt"), "--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"),
			"--service-account-key-file=" + pki("sa.pub"), "--service-account-signing-key-file=" + pki("sa.key"),
			"--kubelet-client-certificate=" + pki("apiserver-kubelet-client.crt"), "--kubelet-client-key=" + pki("apiserver-kubelet-client.key"),
			"--kubelet-certificate-authority=" + pki("ca.crt"), "--kubelet-preferred-address-types=InternalIP",
		}
	case "scheduler":
		return []string{knarr, "scheduler", config("scheduler")}
	case "controllers":
		return []string{knarr, "controllers", config("controllers"), "--root-ca-file=" + pki("ca.crt"), "--cluster-cidr=10.245.0.0/16", "--service-cluster-ip-range=10.97.0.0/16"}
	case "kubelet":
		return []string{
			knarr, "kubelet", config("kubelet"), "--hostname-override=" + partsNode, "--container-runtime-endpoint=" + p.runtime.Endpoint(),
			"--root-dir=" + file("kubelet"), "--pod-logs-dir=" + file("logs", "pods"), "--container-logs-dir=" + file("logs", "containers"),
			"--cgroup-root=" + partsCgroup, "--port=" + kubeletPort, "--read-only-port=" + readOnlyPort, "--healthz-port=17248",
			"--client-ca-file=" + pki("ca.crt"), "--tls-cert-file=" + pki("kubelet.crt"), "--tls-private-key-file=" + pki("kubelet.key"),
		}
	}
	return []string{
		knarr, "proxy", config("proxy"), "--hostname-override=" + partsNode, "--cluster-cidr=10.245.0.0/16", "--healthz-bind-address=127.0.0.1:17256",
		"--metrics-bind-address=127.0.0.1:17249", "--cni-conf-dir=" + p.runtime.CNIConf, "--data-dir=" + file("proxy"), "--bridge=" + partsBridge, "--bpf-dir=" + partsPins,
	}
}

// order is in what order the parts are started. Any other would do.
var order = []string{"etcd", "apiserver", "scheduler", "controllers", "kubelet", "proxy"}

func (p *parts) start() error {
	p.procs = map[string]*exec.Cmd{}
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return err
	}
	if err := p.startRuntime(); err != nil {
		return err
	}
	out, err := exec.Command(filepath.Join(bin, "knarr"), "certs", "--dir="+file("pki"), "--server=https://127.0.0.1:"+securePort, "--node-name="+partsNode, "--node-ip="+hostIP()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("knarr certs: %w: %s", err, out)
	}
	if err := os.Symlink(file("pki", "admin.kubeconfig"), file("kubeconfig")); err != nil {
		return err
	}
	for _, part := range order {
		if err := p.run(part); err != nil {
			return err
		}
	}
	return within(time.Minute, func() error {
		out, err := exec.Command(filepath.Join(bin, "kubectl"), "--kubeconfig="+file("kubeconfig"), "wait", "--for=condition=Ready", "node/"+partsNode, "--timeout=1s").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return p.letIn()
	})
}

// letIn gives the API server the right to use kubelets, as knarr up does.
func (p *parts) letIn() error {
	out, err := exec.Command(filepath.Join(bin, "kubectl"), "--kubeconfig="+file("kubeconfig"), "create", "clusterrolebinding", "kubelet-api",
		"--clusterrole=system:kubelet-api-admin", "--user=kube-apiserver-kubelet-client").CombinedOutput()
	if err != nil && !strings.Contains(string(out), "already exists") {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func (p *parts) startRuntime() error {
	cni := ""
	for _, dir := range []string{"/opt/cni/bin", "/usr/lib/cni"} {
		if _, err := os.Stat(filepath.Join(dir, "bridge")); err == nil {
			cni = dir
		}
	}
	p.runtime = containerd.Config{Binary: filepath.Join(bin, "containerd"), Dir: file("containerd"), CNIBin: cni, CNIConf: file("net.d"), Sandbox: image.Pause}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := containerd.Start(ctx, p.runtime); err != nil {
		return err
	}
	list, err := image.Builtins(filepath.Join(bin, "knarr"))
	if err != nil {
		return err
	}
	rt, err := cri.Dial(p.runtime.Endpoint())
	if err != nil {
		return err
	}
	return errors.Join(image.Import(ctx, rt.Conn(), list), rt.Close())
}

// run starts a part.
func (p *parts) run(part string) error {
	log, err := os.OpenFile(file(part+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the process has its own
	args := p.command(part)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	p.procs[part] = cmd
	return cmd.Start()
}

func (p *parts) end() error {
	var errs []error
	for _, part := range slices.Backward(order) {
		cmd := p.procs[part]
		if cmd == nil || cmd.Process == nil {
			continue
		}
		if part == "proxy" {
			args := p.command("proxy")
			errs = append(errs, stop(cmd))
			if out, err := exec.Command(args[0], append(args[1:], "--cleanup")...).CombinedOutput(); err != nil {
				errs = append(errs, fmt.Errorf("proxy --cleanup: %w: %s", err, out))
			}
			continue
		}
		errs = append(errs, stop(cmd))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	errs = append(errs, containerd.Stop(ctx, p.runtime))
	groups, err := cgroup.New(partsCgroup)
	if err == nil {
		err = groups.Remove(ctx)
	}
	errs = append(errs, err, unmountBelow(dataDir), os.RemoveAll(dataDir))
	return errors.Join(errs...)
}

// stop ends a process in an orderly way.
func stop(cmd *exec.Cmd) error {
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("end %s: %w", cmd.Args[1], err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		// etcd ends by the signal that it was sent.
		if state, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); err != nil && (!ok || !state.Signaled() || state.Signal() != syscall.SIGTERM) {
			return fmt.Errorf("end %s: %w", cmd.Args[1], err)
		}
		return nil
	case <-time.After(20 * time.Second):
		return errors.Join(fmt.Errorf("%s does not end", cmd.Args[1]), cmd.Process.Kill())
	}
}

func (p *parts) crash(t *testing.T) {
	t.Helper()
	cmd := p.procs["apiserver"]
	kill(t, cmd.Process.Pid)
	_ = cmd.Wait() // it was killed
}

func (p *parts) restart(t *testing.T) {
	t.Helper()
	if err := p.run("apiserver"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, func() error {
		out, err := program(t, "kubectl", "get", "--raw", "/readyz")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// within calls f until it is content.
func within(limit time.Duration, f func() error) error {
	deadline := time.After(limit)
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-deadline:
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// hostIP is the address of the default route's interface.
func hostIP() string {
	out, err := exec.Command("ip", "-4", "route", "get", "1.1.1.1").Output()
	if _, after, ok := strings.Cut(string(out), " src "); err == nil && ok {
		return strings.Fields(after)[0]
	}
	return "127.0.0.1"
}

// unmountBelow unmounts what pods have left.
func unmountBelow(dir string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, line := range slices.Backward(strings.Split(string(b), "\n")) {
		f := strings.Fields(line)
		if len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			if err := unix.Unmount(f[4], unix.MNT_DETACH); err != nil && !errors.Is(err, fs.ErrInvalid) {
				return fmt.Errorf("unmount %s: %w", f[4], err)
			}
		}
	}
	return nil
}
