package up

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/knarr-dev/knarr/cmd/knarr/parts"
)

// defaultDir is where a cluster keeps everything.
const defaultDir = "/var/lib/knarr"

// Options are what a cluster is started with, and keeps.
type Options struct {
	Node         string `json:"node"`
	NodeIP       string `json:"nodeIP,omitempty"`
	PodRange     string `json:"podRange"`
	ServiceRange string `json:"serviceRange"`
	EtcdServers  string `json:"etcdServers,omitempty"` // comma separated
	EtcdCA       string `json:"etcdCA,omitempty"`
	EtcdCert     string `json:"etcdCert,omitempty"`
	EtcdKey      string `json:"etcdKey,omitempty"`
	Runtime      string `json:"runtime,omitempty"` // endpoint of a CRI runtime, else one of our own

	BindAddress     string `json:"bindAddress"`
	SecurePort      int    `json:"securePort"`
	KubeletPort     int    `json:"kubeletPort"`
	ReadOnlyAddress string `json:"readOnlyAddress"`
	ReadOnlyPort    int    `json:"readOnlyPort"`
	HealthzPort     int    `json:"healthzPort"`
	ProxyHealthPort int    `json:"proxyHealthzPort"`
	ProxyMetrics    int    `json:"proxyMetricsPort"`
}

// flags adds the flags that set the options.
func (o *Options) flags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Node, "node-name", "", "name of this machine's node; the machine's own where empty")
	fs.StringVar(&o.NodeIP, "node-ip", "", "address of this machine's node; that of the default route where empty")
	fs.StringVar(&o.PodRange, "cluster-cidr", "10.244.0.0/16", "range of addresses for pods")
	fs.StringVar(&o.ServiceRange, "service-cluster-ip-range", "10.96.0.0/16", "range of addresses for services")
	fs.StringVar(&o.EtcdServers, "etcd-servers", "", "etcd servers to keep everything in, comma separated; an etcd of its own where empty")
	fs.StringVar(&o.EtcdCA, "etcd-cafile", "", "authorities that sign etcd's certificates")
	fs.StringVar(&o.EtcdCert, "etcd-certfile", "", "certificate to show to etcd")
	fs.StringVar(&o.EtcdKey, "etcd-keyfile", "", "key of the certificate to show to etcd")
	fs.StringVar(&o.Runtime, "container-runtime-endpoint", "", "socket of a CRI runtime; a containerd of its own where empty")
	fs.StringVar(&o.BindAddress, "bind-address", "0.0.0.0", "address that the API server and the kubelet serve on")
	fs.IntVar(&o.SecurePort, "secure-port", 6443, "port of the API server")
	fs.IntVar(&o.KubeletPort, "kubelet-port", 10250, "port of the kubelet")
	fs.StringVar(&o.ReadOnlyAddress, "read-only-address", "127.0.0.1", "address of the kubelet's read-only port")
	fs.IntVar(&o.ReadOnlyPort, "read-only-port", 10255, "the kubelet's read-only port; 0 for none")
	fs.IntVar(&o.HealthzPort, "healthz-port", 10248, "port of the kubelet's health check; 0 for none")
	fs.IntVar(&o.ProxyHealthPort, "proxy-healthz-port", 10256, "port of the service proxy's health check; 0 for none")
	fs.IntVar(&o.ProxyMetrics, "proxy-metrics-port", 10249, "port of the service proxy's metrics; 0 for none")
}

// merged is what a cluster that was made with had is to be started with: what
// is given now counts, but for what must stay as it was.
func merged(had *Options, given *pflag.FlagSet) (Options, error) {
	var o Options
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.flags(fs)
	if had != nil {
		o = *had
	}
	var err error
	given.Visit(func(f *pflag.Flag) {
		if fs.Lookup(f.Name) != nil && err == nil {
			err = fs.Set(f.Name, f.Value.String())
		}
	})
	if err != nil || had == nil {
		return o, err
	}
	for _, stays := range []struct{ flag, was, is string }{
		{"node-name", had.Node, cmp.Or(o.Node, had.Node)},
		{"cluster-cidr", had.PodRange, o.PodRange},
		{"service-cluster-ip-range", had.ServiceRange, o.ServiceRange},
		{"etcd-servers", had.EtcdServers, o.EtcdServers},
	} {
		if stays.was != stays.is {
			return o, fmt.Errorf("this cluster was made with --%s=%s and keeps it: leave the flag away, or choose another --data-dir", stays.flag, stays.was)
		}
	}
	return o, nil
}

// complete finds out what was not said and checks the rest.
func (o *Options) complete() error {
	if o.Node == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find the name of this machine: %w", err)
		}
		o.Node = strings.ToLower(host)
	}
	for flag, text := range map[string]string{"cluster-cidr": o.PodRange, "service-cluster-ip-range": o.ServiceRange} {
		for part := range strings.SplitSeq(text, ",") {
			if _, err := netip.ParsePrefix(strings.TrimSpace(part)); err != nil {
				return fmt.Errorf("--%s: %w", flag, err)
			}
		}
	}
	if o.NodeIP != "" && net.ParseIP(o.NodeIP) == nil {
		return fmt.Errorf("--node-ip: %s is no address", o.NodeIP)
	}
	return nil
}

// address is where the node is reached.
func (o *Options) address() (string, error) {
	if o.NodeIP != "" {
		return o.NodeIP, nil
	}
	a, err := parts.HostAddress()
	return a.String(), err
}

// server is the URL by which this machine reaches the API server.
func (o *Options) server() string {
	host := o.BindAddress
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "https://" + net.JoinHostPort(host, fmt.Sprint(o.SecurePort))
}
