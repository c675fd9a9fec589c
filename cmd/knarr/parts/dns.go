package parts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/knarr-dev/knarr/proxy/dns"
)

// A DNS is the options of the cluster's DNS.
type DNS struct {
	Kubeconfig  string // that of the pod's service account where empty
	Zone        string
	TTL         uint32
	Listen      []string
	HTTP        string
	Upstreams   []string // those of ResolvConf where empty
	ResolvConf  string
	Lameduck    time.Duration
	Connections int
	Forwards    int
}

// Flags adds the flags that set the options.
func (o *DNS) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Kubeconfig, "kubeconfig", "", "where the API server is, and who this is; what a pod is told by its service account where empty")
	fs.StringVar(&o.Zone, "zone", "cluster.local", "name below which the cluster's names are")
	fs.Uint32Var(&o.TTL, "ttl", 30, "seconds for which clients may remember an answer")
	fs.StringSliceVar(&o.Listen, "listen", []string{":53"}, "addresses to answer questions on, over UDP and TCP")
	fs.StringVar(&o.HTTP, "http-listen", ":9153", "address for /health, /ready and /metrics; none where empty")
	fs.StringSliceVar(&o.Upstreams, "upstream", nil, "servers to ask for all other names, each with or without a port, in this order; those of --resolv-conf where empty")
	fs.StringVar(&o.ResolvConf, "resolv-conf", "/etc/resolv.conf", "file that names the servers to ask for all other names; nobody is asked where empty")
	fs.DurationVar(&o.Lameduck, "lameduck", 5*time.Second, "how long to go on answering after being told to end, until nobody asks here any more")
	fs.IntVar(&o.Connections, "max-tcp-connections", 256, "TCP connections to keep at a time")
	fs.IntVar(&o.Forwards, "max-forwards", 512, "questions to put to other servers at a time")
}

// Main runs the DNS as a process of its own.
func (o *DNS) Main(ctx context.Context) error {
	frugal()
	cfg, err := o.client()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	upstreams, err := o.upstreams()
	if err != nil {
		return err
	}
	s, err := dns.New(ctx, dns.Config{
		Client: client, Zone: o.Zone, TTL: o.TTL, Listen: o.Listen, HTTP: o.HTTP, Upstreams: upstreams,
		Lameduck: o.Lameduck, TCP: o.Connections, Forwards: o.Forwards,
	})
	if err != nil {
		return err
	}
	return ended(s.Run(ctx))
}

// client says where the API server is. It need not be there to start.
func (o *DNS) client() (cfg *rest.Config, err error) {
	if o.Kubeconfig != "" {
		cfg, err = clientcmd.BuildConfigFromFlags("", o.Kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("--kubeconfig: %w", err)
		}
	} else if cfg, err = rest.InClusterConfig(); err != nil {
		return nil, fmt.Errorf("no --kubeconfig, and this is no pod with a service account: %w", err)
	}
	cfg.UserAgent = "knarr-dns"
	return settings(cfg), nil
}

// upstreams are the servers to ask for names outside the cluster. That there
// are none is no reason not to answer for those within.
func (o *DNS) upstreams() ([]netip.AddrPort, error) {
	if len(o.Upstreams) > 0 {
		list, err := dns.Servers(o.Upstreams)
		if err != nil {
			return nil, fmt.Errorf("--upstream: %w", err)
		}
		return list, nil
	}
	if o.ResolvConf == "" {
		return nil, nil
	}
	list, err := dns.System(o.ResolvConf)
	if errors.Is(err, fs.ErrNotExist) {
		slog.Warn("nobody to ask for other names", "err", err)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("--resolv-conf: %w", err)
	}
	return list, nil
}

// frugal trades processor time, of which answering takes little, for memory,
// unless the environment says otherwise.
func frugal() {
	if cmp.Or(os.Getenv("GOGC"), os.Getenv("GOMEMLIMIT")) == "" {
		debug.SetGCPercent(50)
	}
}
