package parts

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/knarr-dev/knarr/ctrl/all"
	"github.com/knarr-dev/knarr/ctrl/engine"
	"github.com/knarr-dev/knarr/ctrl/engine/sweep"
	"github.com/knarr-dev/knarr/ctrl/nodeipam"
	"github.com/knarr-dev/knarr/registry/authn"
)

// A Controllers is the options of the controllers.
type Controllers struct {
	Kubeconfig   string
	Elect        bool
	RootCA       string // file
	PodRange     string // none where empty
	NodeMask     int
	ServiceRange string
	Metrics      prometheus.Registerer
}

// Flags adds the flags that set the options.
func (o *Controllers) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Kubeconfig, "kubeconfig", "", "where the API server is, and who this is")
	fs.BoolVar(&o.Elect, "leader-elect", true, "act only while holding the lease kube-system/kube-controller-manager")
	fs.StringVar(&o.RootCA, "root-ca-file", "", "authorities by which pods know the API server, published to every namespace")
	fs.StringVar(&o.PodRange, "cluster-cidr", "", "range of addresses for pods, of which nodes get parts; none where empty")
	fs.IntVar(&o.NodeMask, "node-cidr-mask-size", 24, "size of a node's part of --cluster-cidr, as the length of its prefix")
	fs.StringVar(&o.ServiceRange, "service-cluster-ip-range", "", "range of addresses for services, of which no node gets a part")
}

// Run runs the controllers until ctx ends.
func (o *Controllers) Run(ctx context.Context, door *Door) error {
	options, err := o.options()
	if err != nil {
		return err
	}
	tally := &sweep.Tally{}
	options.Counts = tally.Counts
	cfg := engine.Config{
		Controllers: all.List(options),
		Loops: []engine.Loop{sweep.Loop(sweep.Config{
			Metadata: door.Metadata, Discovery: door.Discovery(), Garbage: true, Namespaces: true, Tally: tally,
		}), sweep.Types(door.Discovery())},
		Informers: door.Informers,
		Client:    door.Client,
		Metrics:   o.Metrics,
	}
	if o.Elect {
		id, err := identity()
		if err != nil {
			return err
		}
		cfg.Lease = &engine.Lease{Identity: id}
	}
	return ended(engine.Run(ctx, cfg))
}

// Main runs the controllers as a process of their own.
func (o *Controllers) Main(ctx context.Context) error {
	door, err := FromKubeconfig(o.Kubeconfig, "kube-controller-manager")
	if err != nil {
		return err
	}
	return o.Run(ctx, door)
}

func (o *Controllers) options() (options all.Options, err error) {
	if o.RootCA != "" {
		bundle, err := authn.ReadBundle(o.RootCA)
		if err != nil {
			return options, fmt.Errorf("--root-ca-file: %w", err)
		}
		options.RootCA = func() string { return string(bundle.PEM()) }
	}
	services, err := prefixes(o.ServiceRange)
	if err != nil {
		return options, fmt.Errorf("--service-cluster-ip-range: %w", err)
	}
	options.Services = services
	pods, err := prefixes(o.PodRange)
	if err != nil {
		return options, fmt.Errorf("--cluster-cidr: %w", err)
	}
	for _, p := range pods {
		options.PodRanges = append(options.PodRanges, nodeipam.Range{Prefix: p, Bits: o.NodeMask})
	}
	return options, nil
}

// prefixes reads ranges that are separated by commas.
func prefixes(text string) (all []netip.Prefix, err error) {
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		p, err := netip.ParsePrefix(part)
		if err != nil {
			return nil, err
		}
		all = append(all, p.Masked())
	}
	return all, nil
}

// identity is the name by which this process holds a lease.
func identity() (string, error) {
	host, err := os.Hostname()
	return host + "_" + uuid.NewString(), err
}

// ended is the error of a part's end, nil where it ended because it was told to.
func ended(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
