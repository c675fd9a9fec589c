// Package run keeps the network of one node as the API server has it: it
// watches Services, EndpointSlices, Nodes and the node's pods, has package lb
// decide what that means, and package datapath and package network do it.
//
// What it has done outlives it. A proxy that starts finds what an earlier one
// left, and takes nothing away before it knows all that there should be.
package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/knarr-dev/knarr/proxy/datapath"
	"github.com/knarr-dev/knarr/proxy/network"
)

// Config says for which node the proxy is, and where it works.
type Config struct {
	Node      string
	Informers informers.SharedInformerFactory
	// Pods has at least those of the node; nil is the informers' own.
	Pods cache.SharedIndexInformer

	Datapath datapath.Config
	Network  network.Config
	// NodePorts are the node's addresses that node ports are open at, all
	// where it is empty.
	NodePorts []netip.Prefix
	// Primary has node ports open at the node's internal addresses only.
	Primary bool

	Health  string // address to serve health checks at, none where empty
	Metrics string // and metrics
}

// Run follows the API server until ctx ends. It leaves all in force then.
//
// It acts on the network namespace of the calling thread. Where that is not
// the process's own, the caller must have locked itself to the thread.
func Run(ctx context.Context, c Config) (err error) {
	c.Datapath.Dir = cmp.Or(c.Datapath.Dir, datapath.DefaultDir)
	c.Network.Bridge = cmp.Or(c.Network.Bridge, network.DefaultBridge)
	d, err := datapath.Open(c.Datapath)
	if err != nil {
		return fmt.Errorf("open datapath: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	n, err := network.Open(c.Network)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	h, err := openHost()
	if err != nil {
		return err
	}
	defer h.close()
	l, err := newLoop(ctx, c, means{d, n, h})
	if err != nil {
		return err
	}
	defer l.close(ctx)
	tasks, ctx := errgroup.WithContext(ctx)
	for _, e := range []endpoint{{c.Health, l.health.handler(l.metrics)}, {c.Metrics, l.metrics.handler()}} {
		if err := e.start(ctx, tasks); err != nil {
			return err
		}
	}
	go h.watch()
	c.Informers.Start(ctx.Done())
	if c.Pods != nil {
		tasks.Go(func() error { c.Pods.RunWithContext(ctx); return nil })
	}
	return errors.Join(l.run(ctx), tasks.Wait())
}

// Remove ends what Run did for good: programs, maps, routes, rules, bridge and
// configuration. It is no error if there is nothing.
func Remove(ctx context.Context, c Config) error {
	return errors.Join(datapath.Remove(cmp.Or(c.Datapath.Dir, datapath.DefaultDir)), network.Remove(ctx, c.Network))
}

// listen opens a port, from the calling thread.
func listen(ctx context.Context, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve %s: %w", address, err)
	}
	slog.DebugContext(ctx, "serving", "address", l.Addr().String())
	return l, nil
}
