package parts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/knarr-dev/knarr/kubelet/certs"
	"github.com/knarr-dev/knarr/kubelet/cri"
	"github.com/knarr-dev/knarr/kubelet/logs"
	"github.com/knarr-dev/knarr/kubelet/node"
	"github.com/knarr-dev/knarr/kubelet/run"
	"github.com/knarr-dev/knarr/kubelet/server"
	"github.com/knarr-dev/knarr/kubelet/stats"
	"github.com/knarr-dev/knarr/kubelet/stream"
	"github.com/knarr-dev/knarr/registry/assembly"
)

// Run brings the node into the cluster and looks after its pods until ctx
// ends. It leaves the pods running then.
func (o *Kubelet) Run(ctx context.Context, door *Door) error {
	k, err := o.prepare(ctx, door)
	if err != nil {
		return err
	}
	defer func() {
		if err := k.runtime.Close(); err != nil {
			slog.WarnContext(ctx, "close runtime client", "err", err)
		}
	}()
	tasks, ctx := errgroup.WithContext(ctx)
	listeners, err := o.listeners(ctx)
	if err != nil {
		return err
	}
	cfg := run.Config{
		NodeName: k.name, Root: o.Root, LogDir: o.PodLogs, LinkDir: o.LogLinks,
		Node: k.node.Load, IPs: k.ips, Tell: run.Recorder(ctx, k.client, k.name), Pods: &run.Pods{},
	}
	hooks, err := run.Hooks(ctx, cfg, o.settings(k), k.runtime, k.client)
	if err != nil {
		return err
	}
	provider := stats.New(stats.Config{
		Node: k.name, Machine: k.machine, Runtime: k.runtime.Runtime, Images: k.runtime.Image, Pods: cfg.Pods.List,
		PodsCgroup: filepath.Join(o.CgroupRoot, "/kubepods"), Root: o.Root, LogDir: o.PodLogs,
	})
	api := k.api(o, cfg.Pods, provider)
	rotator := &logs.Rotator{Dir: o.PodLogs, MaxSize: o.logSize, MaxFiles: o.LogFiles, Every: logLook, Runtime: k.runtime.Runtime}
	tasks.Go(func() error { return node.Run(ctx, k.nodeConfig(ctx, o)) })
	tasks.Go(func() error { return run.Run(ctx, cfg, k.runtime, k.client, hooks) })
	tasks.Go(func() error { return server.Serve(ctx, api, listeners) })
	tasks.Go(func() error { return rotator.Run(ctx) })
	return ended(tasks.Wait())
}

// Main runs the kubelet as a process of its own.
func (o *Kubelet) Main(ctx context.Context) error {
	door, err := FromKubeconfig(o.Kubeconfig, "kubelet")
	if err != nil {
		return err
	}
	return o.Run(ctx, door)
}

// agent is what the parts of a kubelet share.
type agent struct {
	name    string
	client  kubernetes.Interface
	runtime *cri.Client
	machine *stats.Machine
	given   []net.IP // the addresses that the node was told
	node    atomic.Pointer[corev1.Node]
}

func (o *Kubelet) prepare(_ context.Context, door *Door) (*agent, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	k := &agent{name: o.NodeName, client: door.Client(""), machine: stats.ReadMachine(os.DirFS("/"), stats.Statfs)}
	for _, text := range o.NodeIPs {
		ip := net.ParseIP(text)
		if ip == nil {
			return nil, fmt.Errorf("--node-ip: %s is no address", text)
		}
		k.given = append(k.given, ip)
	}
	for _, dir := range []string{o.Root, o.PodLogs, o.LogLinks} {
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make directory of the kubelet: %w", err)
		}
	}
	var err error
	k.runtime, err = cri.Dial(o.Runtime)
	return k, err
}

// ips are the node's addresses: those that it was told, else those that its
// object has.
func (k *agent) ips() (list []string) {
	for _, ip := range k.given {
		list = append(list, ip.String())
	}
	n := k.node.Load()
	if len(list) > 0 || n == nil {
		return list
	}
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			list = append(list, a.Address)
		}
	}
	return list
}

// nodeConfig is how the node is told of.
func (k *agent) nodeConfig(ctx context.Context, o *Kubelet) node.Config {
	events := record.NewBroadcaster(record.WithContext(ctx))
	events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: k.client.CoreV1().Events("")})
	context.AfterFunc(ctx, events.Shutdown)
	return node.Config{
		Settings: node.Settings{
			Name: k.name, Hostname: o.hostname, Version: assembly.Release.GitVersion, Labels: o.Labels, Taints: o.taints,
			ProviderID: o.ProviderID, Port: int32(o.Port), MaxPods: int64(o.MaxPods), PodsPerCore: int64(o.PodsPerCore), MaxImages: maxImages,
			Reserved: o.reserved, HardEviction: o.EvictionHard,
		},
		Client: k.client, Recorder: events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubelet", Host: k.name}),
		Runtime: k.runtime.Runtime, Images: k.runtime.Image, Machine: k.machine,
		Addresses: node.Addresses(o.hostname, k.given),
		Disk: func() (int64, error) {
			fs, err := stats.Statfs(o.Root)
			return int64(fs.Capacity), err
		},
		Observe: func(n *corev1.Node) { k.node.Store(n) },
	}
}

// api is what the kubelet serves.
func (k *agent) api(o *Kubelet, pods *run.Pods, provider *stats.Provider) server.Config {
	reader := &logs.Reader{Runtime: k.runtime.Runtime}
	own := prometheus.NewRegistry()
	own.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), provider.Kubelet())
	gatherers := map[string]prometheus.Gatherer{"": own, "probes": prometheus.NewRegistry()}
	for name, c := range map[string]prometheus.Collector{"cadvisor": provider.Cadvisor(), "resource": provider.Resource()} {
		r := prometheus.NewRegistry()
		r.MustRegister(c)
		gatherers[name] = r
	}
	return server.Config{
		Auth: server.Auth{
			Node: k.name, Authorities: o.authorities, Reviews: k.client, Anonymous: o.Anonymous, AlwaysAllow: o.authorization == modeAlways,
		},
		Pods: pods.List, Running: provider.Running,
		Streams: &stream.Streamer{Runtime: k.runtime.Runtime, Idle: streamIdle},
		Logs:    reader.Read, Summary: provider.Summary,
		Spec:    func() (any, error) { return k.machine, nil },
		Metrics: gatherers, Register: own, Configz: o.configz(k.name), LogDir: filepath.Dir(o.PodLogs), Level: o.Level,
	}
}

// listeners opens the ports, but those that were opened already.
func (o *Kubelet) listeners(ctx context.Context) (l server.Listeners, err error) {
	if l.TLS, err = o.serving(); err != nil {
		return l, err
	}
	for _, each := range []struct {
		to      *net.Listener
		have    net.Listener
		address string
		port    int
	}{
		{&l.Secure, o.Secure, o.Address, o.Port},
		{&l.ReadOnly, o.ReadOnly, o.ReadOnlyAddress, o.ReadOnlyPort},
		{&l.Healthz, o.Healthz, o.HealthzAddress, o.HealthzPort},
	} {
		if *each.to = each.have; each.have != nil || each.port == 0 {
			continue
		}
		if *each.to, err = (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(each.address, fmt.Sprint(each.port))); err != nil {
			return l, err
		}
	}
	if l.Secure == nil {
		return l, errors.New("--port must not be 0: the API server reaches the kubelet there")
	}
	return l, nil
}

// serving is the kubelet's end of TLS.
func (o *Kubelet) serving() (*tls.Config, error) {
	pair, err := certs.Files(o.CertFile, o.KeyFile)
	if o.CertFile == "" {
		pair, err = certs.SelfSigned(o.CertDir, "kubelet", append([]string{o.hostname}, o.NodeIPs...)...)
	}
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: pair.Serve}, nil
}

// authorizer is how it is decided what those who are known may do.
type authorizer string

const (
	modeWebhook authorizer = "Webhook"
	modeAlways  authorizer = "AlwaysAllow"
)

// complete makes what the flags say ready for use.
func (o *Kubelet) complete() error {
	if o.Runtime == "" {
		return errors.New("--container-runtime-endpoint is needed: the socket of containerd or another CRI runtime")
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("find the name of this machine: %w", err)
	}
	if o.NodeName == "" {
		o.NodeName = host
	}
	o.NodeName = strings.ToLower(strings.TrimSpace(o.NodeName))
	o.hostname = o.NodeName
	if o.authorization = authorizer(o.Authorization); o.authorization != modeWebhook && o.authorization != modeAlways {
		return fmt.Errorf("--authorization-mode: %q is neither %s nor %s", o.Authorization, modeWebhook, modeAlways)
	}
	if o.ClientCA != "" {
		pool, err := certs.Authorities(o.ClientCA)
		if err != nil {
			return fmt.Errorf("--client-ca-file: %w", err)
		}
		o.authorities = pool.Current
	} else {
		o.authorities = func() *x509.CertPool { return nil }
	}
	return o.quantities()
}
