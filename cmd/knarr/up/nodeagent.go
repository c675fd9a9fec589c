package up

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/knarr-dev/knarr/cmd/knarr/parts"
	"github.com/knarr-dev/knarr/proxy/datapath"
)

// entered marks the environment of an agent that is in its namespaces.
const entered = "KNARR_NODE_ENTERED"

// agent runs a node's containerd, kubelet and service proxy until ctx ends.
// Containers go on then.
func (m *member) agent(ctx context.Context, plan *Options) error {
	if os.Getenv(entered) == "" {
		return m.enter()
	}
	if err := m.settle(); err != nil {
		return err
	}
	cfg, err := m.containerd()
	if err != nil {
		return err
	}
	rt := &runtime{endpoint: cfg.Endpoint(), own: cfg}
	kubelet, proxy := m.kubelet(plan, rt.endpoint), m.proxy(plan)
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error { return rt.run(ctx, func() {}) })
	tasks.Go(func() error { return kubelet.Main(ctx) })
	tasks.Go(func() error { return proxy.Main(ctx) })
	return tasks.Wait()
}

// enter goes into the namespaces that the holder holds, and begins anew there.
func (m *member) enter() error {
	pid, ok := m.running(holdFile)
	if !ok {
		return fmt.Errorf("node %s has no namespaces: `knarr node start %s` makes them", m.Name, m.Name)
	}
	// Only this thread goes there; exec makes it the only one.
	goruntime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("enter namespaces: %w", err)
	}
	for _, ns := range []struct {
		name string
		kind int
	}{{"uts", unix.CLONE_NEWUTS}, {"net", unix.CLONE_NEWNET}, {"mnt", unix.CLONE_NEWNS}} {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, ns.name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, ns.kind)
		}
		if err != nil {
			return fmt.Errorf("enter namespace %s: %w", ns.name, err)
		}
	}
	return unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), entered+"=1"))
}

// settle makes the namespaces fit for a node.
func (m *member) settle() error {
	if err := unix.Sethostname([]byte(m.Name)); err != nil {
		return fmt.Errorf("set the node's host name: %w", err)
	}
	// Pods may ask for mounts that are seen on both sides.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share the node's mounts: %w", err)
	}
	if m.unified() == "" {
		return nil
	}
	group := filepath.Join(m.unified(), agentGroup)
	if err := os.MkdirAll(group, 0o755); err != nil {
		return fmt.Errorf("make the node's group: %w", err)
	}
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte("0"), 0o644); err != nil {
		return fmt.Errorf("join the node's group: %w", err)
	}
	return nil
}

func (m *member) kubelet(plan *Options, endpoint string) *parts.Kubelet {
	o := defaults(&parts.Kubelet{})
	o.Kubeconfig, o.Runtime = m.file("pki", "kubelet.kubeconfig"), endpoint
	o.NodeName, o.NodeIPs = m.Name, []string{m.Address}
	o.Root, o.CertDir = m.file("kubelet"), m.file("kubelet", "pki")
	o.PodLogs, o.LogLinks = m.file("logs", "pods"), m.file("logs", "containers")
	o.CgroupRoot = m.cgroup()
	o.CertFile, o.KeyFile, o.ClientCA = m.file("pki", "kubelet.crt"), m.file("pki", "kubelet.key"), m.file("pki", "ca.crt")
	if dns, err := dnsAddress(plan.ServiceRange); err == nil {
		o.ClusterDNS = []string{dns}
	}
	return o
}

func (m *member) proxy(plan *Options) *parts.Proxy {
	o := defaults(&parts.Proxy{})
	o.Kubeconfig, o.NodeName, o.PodRange = m.file("pki", "proxy.kubeconfig"), m.Name, plan.PodRange
	o.Conf, o.Dir = (&dir{path: m.file()}).cniConf(), m.file("cni")
	o.Pins = filepath.Join(filepath.Dir(datapath.DefaultDir), strings.ReplaceAll(m.id(), "/", "-"))
	o.Cgroup = m.unified()
	return o
}
