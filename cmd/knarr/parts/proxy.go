package parts

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/knarr-dev/knarr/ctrl/engine"
	"github.com/knarr-dev/knarr/proxy/datapath"
	"github.com/knarr-dev/knarr/proxy/network"
	"github.com/knarr-dev/knarr/proxy/run"
)

// A Proxy is the options of the service proxy.
type Proxy struct {
	Kubeconfig string
	NodeName   string   // the machine's own where empty
	PodRange   string   // of the whole cluster
	Healthz    string   // address, none where empty
	Metrics    string   // address, none where empty
	NodePorts  []string // ranges, or "primary"
	Conf       string   // directory of the runtime's network configuration
	Dir        string   // directory of what the proxy keeps
	Bridge     string
	Pins       string // directory on a BPF file system
	Cgroup     string // whose processes are clients, all where empty
	Cleanup    bool   // take away what an earlier one has made, and end
}

// Flags adds the flags that set the options.
func (o *Proxy) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Kubeconfig, "kubeconfig", "", "where the API server is, and who this is")
	fs.StringVar(&o.NodeName, "hostname-override", "", "name of this machine's node; the machine's own where empty")
	fs.StringVar(&o.PodRange, "cluster-cidr", "", "range of addresses for pods of all nodes; packets there keep the pod's address")
	fs.StringVar(&o.Healthz, "healthz-bind-address", "0.0.0.0:10256", "address and port of the health check; none where empty")
	fs.StringVar(&o.Metrics, "metrics-bind-address", "127.0.0.1:10249", "address and port of the metrics; none where empty")
	fs.StringSliceVar(&o.NodePorts, "nodeport-addresses", nil, "ranges of those addresses of the machine that node ports are open at, or \"primary\" for the node's; all where empty")
	fs.StringVar(&o.Conf, "cni-conf-dir", "/etc/cni/net.d", "directory to write the container runtime's network configuration to")
	fs.StringVar(&o.Dir, "data-dir", "/var/lib/knarr/proxy", "directory to note in which addresses pods have")
	fs.StringVar(&o.Bridge, "bridge", network.DefaultBridge, "interface that pods hang on; made where it is not there")
	fs.StringVar(&o.Pins, "bpf-dir", datapath.DefaultDir, "directory on a BPF file system that keeps programs and maps")
	fs.BoolVar(&o.Cleanup, "cleanup", false, "take away all that a proxy with these flags has made, and end")
	fs.StringVar(&o.Cgroup, "cgroup", "", "cgroup whose processes reach services; all processes where empty")
}

// Run has services reached and pods connected until ctx ends. It leaves all
// that in force then.
func (o *Proxy) Run(ctx context.Context, door *Door) error {
	cfg, err := o.config()
	if err != nil {
		return err
	}
	cfg.Informers = door.Informers
	if door.handler == nil {
		// All the pods of a cluster are too many for each of its nodes.
		here := fields.OneTermEqualSelector("spec.nodeName", cfg.Node).String()
		cfg.Pods = coreinformers.NewFilteredPodInformer(door.Client(""), metav1.NamespaceAll, 0, cache.Indexers{},
			func(l *metav1.ListOptions) { l.FieldSelector = here })
		if err := cfg.Pods.SetTransform(engine.Trim); err != nil {
			return fmt.Errorf("watch pods: %w", err)
		}
	}
	return ended(run.Run(ctx, cfg))
}

// Main runs the service proxy as a process of its own.
func (o *Proxy) Main(ctx context.Context) error {
	if o.Cleanup {
		return RemoveProxy(ctx, o)
	}
	door, err := FromKubeconfig(o.Kubeconfig, "kube-proxy")
	if err != nil {
		return err
	}
	return o.Run(ctx, door)
}

// RemoveProxy takes away all that a proxy with these options has made. It is
// no error if there is nothing.
func RemoveProxy(ctx context.Context, o *Proxy) error {
	cfg, err := o.config()
	if err != nil {
		return err
	}
	return run.Remove(ctx, cfg)
}

func (o *Proxy) config() (c run.Config, err error) {
	if c.Node = strings.ToLower(strings.TrimSpace(o.NodeName)); c.Node == "" {
		host, err := os.Hostname()
		if err != nil {
			return c, fmt.Errorf("find the name of this machine: %w", err)
		}
		c.Node = strings.ToLower(host)
	}
	if c.Health, err = bindAddress(o.Healthz, "10256"); err != nil {
		return c, fmt.Errorf("--healthz-bind-address: %w", err)
	}
	if c.Metrics, err = bindAddress(o.Metrics, "10249"); err != nil {
		return c, fmt.Errorf("--metrics-bind-address: %w", err)
	}
	if c.Primary = len(o.NodePorts) == 1 && o.NodePorts[0] == "primary"; !c.Primary {
		if c.NodePorts, err = prefixes(strings.Join(o.NodePorts, ",")); err != nil {
			return c, fmt.Errorf("--nodeport-addresses: %w", err)
		}
	}
	c.Datapath = datapath.Config{Dir: o.Pins, Cgroup: o.Cgroup}
	c.Network = network.Config{Conf: o.Conf, IPAM: filepath.Join(o.Dir, "ipam"), Bridge: o.Bridge}
	if c.Network.Ranges, err = prefixes(o.PodRange); err != nil {
		return c, fmt.Errorf("--cluster-cidr: %w", err)
	}
	return c, nil
}

// bindAddress reads an address that may lack the port, as the stock proxy does.
func bindAddress(text, port string) (string, error) {
	if text == "" {
		return "", nil
	}
	if ip, err := netip.ParseAddr(text); err == nil {
		text = netip.AddrPortFrom(ip, 0).String()
		return strings.TrimSuffix(text, "0") + port, nil
	}
	at, err := netip.ParseAddrPort(text)
	if err != nil {
		return "", errors.New("want an address and a port, as in 0.0.0.0:" + port)
	}
	return at.String(), nil
}
