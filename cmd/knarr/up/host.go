package up

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/knarr-dev/knarr/cmd/knarr/parts"
	"github.com/knarr-dev/knarr/cmd/knarr/pki"
	"github.com/knarr-dev/knarr/registry"
)

// A cluster is one that runs in this process.
type cluster struct {
	Options

	dir     *dir
	keys    *pki.Dir
	address string // of the node
	ports   ports
	steps   *steps
}

// renewEvery is how often certificates are looked at. They are renewed months
// before they end.
const renewEvery = 12 * time.Hour

// host runs a cluster until ctx ends or a part of it fails. It calls done when
// the cluster is ready.
func host(ctx context.Context, d *dir, o Options, s *steps, done func()) error {
	if err := checkHost(d.path); err != nil {
		return err
	}
	if err := d.take(); err != nil {
		return fmt.Errorf("%s: %w", d.path, err)
	}
	c := &cluster{Options: o, dir: d, steps: s, keys: &pki.Dir{Path: d.file("pki"), Now: time.Now}}
	var err error
	if c.address, err = o.address(); err != nil {
		return err
	}
	rt, err := c.runtime(ctx)
	if err != nil {
		return err
	}
	if err := c.listen(ctx); err != nil {
		return err
	}
	defer c.ports.close()
	if err := c.certificates(); err != nil {
		return err
	}
	had, err := d.plan()
	if err != nil {
		return err
	}
	fresh := had == nil
	if err := d.write(planFile, Plan{Format: format, Options: o}); err != nil {
		return err
	}
	s.did("Machine checked, certificates in place")
	ready := false
	err = c.run(ctx, rt, func() { ready = true; done() })
	if err != nil && fresh && !ready {
		// There is nothing yet that would have to go on.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
		defer cancel()
		err = errors.Join(err, d.clean(ctx, &o))
	}
	return err
}

// ports are the ports of a cluster. They are opened first, so that a port that
// is taken is known before anything has started.
type ports struct{ api, kubelet, readOnly, healthz net.Listener }

func (c *cluster) listen(ctx context.Context) error {
	for _, p := range []struct {
		to            *net.Listener
		address, flag string
		port          int
	}{
		{&c.ports.api, c.BindAddress, "secure-port", c.SecurePort},
		{&c.ports.kubelet, c.BindAddress, "kubelet-port", c.KubeletPort},
		{&c.ports.readOnly, c.ReadOnlyAddress, "read-only-port", c.ReadOnlyPort},
		{&c.ports.healthz, "127.0.0.1", "healthz-port", c.HealthzPort},
	} {
		if p.port == 0 && p.flag != "secure-port" && p.flag != "kubelet-port" {
			continue
		}
		l, err := listen(ctx, net.JoinHostPort(p.address, fmt.Sprint(p.port)), p.flag)
		if err != nil {
			c.ports.close()
			return err
		}
		*p.to = l
	}
	// The proxy opens its own, a moment later.
	for _, p := range []struct {
		address, flag string
		port          int
	}{{"0.0.0.0", "proxy-healthz-port", c.ProxyHealthPort}, {"127.0.0.1", "proxy-metrics-port", c.ProxyMetrics}} {
		if p.port == 0 {
			continue
		}
		l, err := listen(ctx, net.JoinHostPort(p.address, fmt.Sprint(p.port)), p.flag)
		if err == nil {
			err = l.Close()
		}
		if err != nil {
			c.ports.close()
			return err
		}
	}
	return nil
}

func (p *ports) close() {
	for _, l := range []net.Listener{p.api, p.kubelet, p.readOnly, p.healthz} {
		if l != nil {
			_ = l.Close() // most are closed by who served on them
		}
	}
}

func (c *cluster) certificates() error {
	first, err := firstAddress(c.ServiceRange)
	if err != nil {
		return err
	}
	return c.keys.Cluster(pki.Cluster{
		Hosts: []string{c.address, c.Node, first}, Node: c.Node, NodeIPs: []string{c.address},
		Server: c.server(), AdminAt: c.dir.file(adminFile),
	})
}

// run starts the parts and waits for their end.
func (c *cluster) run(ctx context.Context, rt *runtime, done func()) error {
	tasks, ctx := errgroup.WithContext(ctx)
	runtimeReady, serving, nodeReady := make(chan struct{}), make(chan *parts.Door, 1), make(chan struct{})
	tasks.Go(func() error { return rt.run(ctx, func() { close(runtimeReady) }) })
	tasks.Go(func() error {
		return c.apiServer().Run(ctx, func(r parts.Running) {
			door, err := parts.InProcess(r.Server.Handler, nil, registry.APIServer, "knarr", registry.SystemMasters)
			if err != nil {
				panic(err) // the settings of an in-process client are constant
			}
			serving <- door
		})
	})
	tasks.Go(func() error {
		var door *parts.Door
		select {
		case door = <-serving:
		case <-ctx.Done():
			return nil
		}
		c.steps.did("API server serves")
		tasks.Go(func() error {
			defer close(nodeReady)
			return ignoreEnd(ctx, untilReady(ctx, door.Client(""), c.Node))
		})
		if err := c.others(ctx, tasks, door, rt.endpoint); err != nil {
			return err
		}
		for _, each := range []struct {
			ready <-chan struct{}
			step  string
		}{{runtimeReady, "Container runtime and images ready"}, {nodeReady, "Node " + c.Node + " ready"}} {
			select {
			case <-each.ready:
			case <-ctx.Done():
				return nil
			}
			if ctx.Err() != nil {
				return nil //nolint:nilerr // told to end, and ending
			}
			c.steps.did(each.step)
		}
		if err := c.tell(rt.endpoint); err != nil {
			return err
		}
		done()
		if err := c.dir.applyAddons(ctx, door.Client(""), &c.Options); err != nil && ctx.Err() == nil {
			// The cluster is of use without, and the next start tries again.
			slog.ErrorContext(ctx, "make what a cluster has from the start", "err", err)
		}
		return nil
	})
	tasks.Go(func() error { return c.renew(ctx) })
	err := tasks.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// ignoreEnd is err, unless it came because ctx has ended.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // told to end, and ending
	}
	return err
}

// apiServer is how the API server runs here.
func (c *cluster) apiServer() *parts.APIServer {
	o := defaults(&parts.APIServer{})
	if c.EtcdServers != "" {
		o.EtcdServers = splitList(c.EtcdServers)
		o.EtcdCA, o.EtcdCert, o.EtcdKey = c.EtcdCA, c.EtcdCert, c.EtcdKey
	}
	o.EtcdDir = c.dir.file("etcd")
	o.Listener, o.SecurePort, o.BindAddress, o.AdvertiseAddress = c.ports.api, c.SecurePort, c.BindAddress, c.address
	o.CertFile, o.KeyFile = c.keys.Cert(pki.APIServer), c.keys.Key(pki.APIServer)
	o.ServiceRange = c.ServiceRange
	o.SigningKey, o.AccountKeys = c.keys.Key(pki.Accounts), []string{c.keys.Public(pki.Accounts)}
	o.KubeletCert, o.KubeletKey, o.KubeletCA = c.keys.Cert(pki.KubeletClient), c.keys.Key(pki.KubeletClient), c.keys.Cert(pki.CA)
	o.KubeletAddresses = []string{string(corev1.NodeInternalIP), string(corev1.NodeHostName), string(corev1.NodeExternalIP)}
	o.Assembly.ClientCA = c.keys.Cert(pki.CA)
	o.Assembly.Proxy.CA, o.Assembly.Proxy.Names = c.keys.Cert(pki.ProxyCA), []string{"front-proxy-client"}
	o.ProxyCert, o.ProxyKey = c.keys.Cert(pki.ProxyClient), c.keys.Key(pki.ProxyClient)
	return o
}

// others starts the parts that are clients of the API server.
func (c *cluster) others(ctx context.Context, tasks *errgroup.Group, door *parts.Door, endpoint string) error {
	// With an etcd of its own there is nobody else to be the leader.
	elect := c.EtcdServers != ""
	scheduler := defaults(&parts.Scheduler{})
	scheduler.Elect = elect
	controllers := defaults(&parts.Controllers{})
	controllers.Elect, controllers.RootCA = elect, c.keys.Cert(pki.CA)
	controllers.PodRange, controllers.ServiceRange = c.PodRange, c.ServiceRange
	kubelet := c.kubelet(endpoint)
	proxy := c.dir.proxy(&c.Options)
	for _, p := range []struct {
		user, agent string
		groups      []string
		run         func(context.Context, *parts.Door) error
	}{
		{"system:node:" + c.Node, "kubelet", []string{"system:nodes"}, kubelet.Run},
		{"system:kube-controller-manager", "kube-controller-manager", nil, controllers.Run},
		{"system:kube-scheduler", "kube-scheduler", nil, scheduler.Run},
		{"system:kube-proxy", "kube-proxy", nil, proxy.Run},
	} {
		own, err := door.As(p.user, p.agent, p.groups...)
		if err != nil {
			return err
		}
		tasks.Go(func() error {
			if err := p.run(ctx, own); err != nil {
				return fmt.Errorf("%s: %w", p.agent, err)
			}
			return nil
		})
	}
	return nil
}

func (c *cluster) kubelet(endpoint string) *parts.Kubelet {
	o := defaults(&parts.Kubelet{})
	o.Runtime, o.NodeName, o.NodeIPs = endpoint, c.Node, []string{c.address}
	o.Root, o.CertDir = c.dir.file("kubelet"), c.dir.file("kubelet", "pki")
	o.PodLogs, o.LogLinks = c.dir.file("logs", "pods"), c.dir.file("logs", "containers")
	o.CgroupRoot = c.dir.cgroupRoot()
	o.Address, o.Port, o.ReadOnlyAddress, o.ReadOnlyPort, o.HealthzPort = c.BindAddress, c.KubeletPort, c.ReadOnlyAddress, c.ReadOnlyPort, c.HealthzPort
	o.Secure, o.ReadOnly, o.Healthz = c.ports.kubelet, c.ports.readOnly, c.ports.healthz
	o.CertFile, o.KeyFile = c.keys.Cert(pki.KubeletServer), c.keys.Key(pki.KubeletServer)
	o.ClientCA = c.keys.Cert(pki.CA)
	if dns, err := dnsAddress(c.ServiceRange); err == nil {
		o.ClusterDNS = []string{dns}
	}
	return o
}

// defaults sets the options to what their flags say by default.
func defaults[O parts.Options](o O) O {
	o.Flags(pflag.NewFlagSet("", pflag.ContinueOnError))
	return o
}

// untilReady returns when the node is ready.
func untilReady(ctx context.Context, client kubernetes.Interface, name string) error {
	for {
		w, err := client.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
		if err != nil {
			return fmt.Errorf("watch the node: %w", err)
		}
		ready := seesReady(w)
		w.Stop()
		if ready || ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// seesReady reports whether a watch shows a node that is ready before it ends.
func seesReady(w watch.Interface) bool {
	for e := range w.ResultChan() {
		if n, ok := e.Object.(*corev1.Node); ok && isReady(n) {
			return true
		}
	}
	return false
}

func isReady(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// renew keeps certificates from ending.
func (c *cluster) renew(ctx context.Context) error {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if err := c.certificates(); err != nil {
			slog.ErrorContext(ctx, "renew certificates", "err", err)
		}
	}
}

// containerdDir is short, as paths of sockets must be.
func (d *dir) containerdDir() string { return filepath.Join(d.path, "containerd") }
