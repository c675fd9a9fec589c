package run

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/knarr-dev/knarr/proxy/datapath"
	"github.com/knarr-dev/knarr/proxy/lb"
	"github.com/knarr-dev/knarr/proxy/network"
)

const (
	// window is how long what has changed waits for more of the same: one
	// change of a Service often comes with some of its EndpointSlices.
	window = 10 * time.Millisecond
	// What fails is tried again after firstWait, then after twice as long
	// each time, up to lastWait.
	firstWait = 100 * time.Millisecond
	lastWait  = 5 * time.Second
)

// A plane is the datapath, or a stand-in.
type plane interface {
	lb.Maps
	Attach() error
	SetInterfaces([]datapath.Interface) error
	SetAddresses(map[netip.Addr]bool) error
	Connected() ([]datapath.Socket, error)
	Forget(datapath.Socket) error
}

// A ground is the network of the node's pods, or a stand-in.
type ground interface {
	Set(node network.Node, others []network.Node) error
}

// A machine has the node's interfaces and sockets, or none.
type machine interface {
	look() ([]iface, error)
	changed() <-chan struct{} // whether interfaces are as they were
	abort(ctx context.Context, sockets []datapath.Socket) error
}

// means are what the loop acts by.
type means struct {
	plane  plane
	ground ground
	host   machine
}

// loop does everything from one goroutine.
type loop struct {
	Config
	means

	source  *source
	state   *lb.State // nil before the first fill
	node    lb.Node
	checks  checks
	health  health
	metrics *metrics

	attached   bool                 // the programs of the socket level are in force
	lost       bool                 // UDP sockets may be left with backends of the past
	interfaces []datapath.Interface // as they were set last
	addresses  map[netip.Addr]bool

	table, pods, links *task
}

// A task is something that is done again and again, for a reason or because
// it failed.
type task struct {
	name string
	do   func(ctx context.Context) error
	due  time.Time // zero: there is no reason to
	wait time.Duration
	said string // what was logged of the failure
}

// wake makes the task due. One that waits after a failure goes on waiting.
func (t *task) wake(now time.Time) {
	if t.due.IsZero() {
		t.due = now.Add(window)
	}
}

func (t *task) run(ctx context.Context) {
	t.due = time.Time{}
	err := t.do(ctx)
	if err == nil {
		if t.said != "" {
			slog.InfoContext(ctx, t.name+" is as it should be again")
		}
		t.wait, t.said = 0, ""
		return
	}
	if text := err.Error(); text != t.said {
		slog.ErrorContext(ctx, t.name, "err", err)
		t.said = text
	}
	t.wait = min(max(2*t.wait, firstWait), lastWait)
	t.due = time.Now().Add(t.wait)
}

func newLoop(ctx context.Context, c Config, m means) (*loop, error) {
	l := &loop{Config: c, means: m, metrics: newMetrics()}
	l.checks = checks{health: &l.health, open: map[lb.Owner]*check{}}
	l.table = &task{name: "balance services", do: l.syncTable}
	l.pods = &task{name: "connect pods", do: l.syncPods}
	l.links = &task{name: "follow interfaces", do: l.syncLinks}
	l.health.begin(time.Now())
	var err error
	l.source, err = newSource(ctx, c)
	return l, err
}

// close lets go of what the loop holds. All that it did stays.
func (l *loop) close(ctx context.Context) {
	l.source.close()
	l.checks.close(ctx)
}

func (l *loop) run(ctx context.Context) error {
	tasks := []*task{l.pods, l.table, l.links}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.source.news:
			l.hear(time.Now())
		case <-l.host.changed():
			l.links.wake(time.Now())
		case <-timer.C:
		}
		now := time.Now()
		next := now.Add(time.Hour)
		for _, t := range tasks {
			if !t.due.IsZero() && !t.due.After(now) {
				t.run(ctx)
			}
			if !t.due.IsZero() && t.due.Before(next) {
				next = t.due
			}
		}
		timer.Reset(time.Until(next))
	}
}

// hear wakes the tasks that the news is for.
func (l *loop) hear(now time.Time) {
	nodes, services := l.source.reasons()
	if nodes {
		l.pods.wake(now)
	}
	if services {
		l.table.wake(now)
		l.health.begin(now)
		l.metrics.queued.Set(seconds(now))
	}
}

// syncPods sees to the network of the pods.
func (l *loop) syncPods(context.Context) error {
	node, others := l.source.network(l.Node)
	if node == nil {
		return nil
	}
	l.health.see(node)
	return l.ground.Set(network.Describe(node), others)
}

// syncTable carries what has changed into the maps, once all that there is
// has been heard of.
func (l *loop) syncTable(ctx context.Context) error {
	if l.state == nil {
		if !l.source.isComplete() {
			return nil
		}
		have, err := l.plane.Dump()
		if err != nil {
			return err
		}
		l.state = lb.NewState(have)
	}
	began := time.Now()
	l.describeNode()
	changes := l.source.take()
	var errs []error
	for _, o := range changes.owners {
		plan := l.source.plan(o, l.node)
		l.checks.want(o, plan.Health)
		if err := l.state.Set(o, plan); err != nil {
			errs = append(errs, err)
			l.source.mark(func() { l.source.note(o) })
		}
	}
	lost, err := l.state.Sync(l.plane)
	l.lost = l.lost || lost
	errs = append(errs, err, l.attach(ctx), l.checks.apply(ctx), l.endStale(ctx))
	err = errors.Join(errs...)
	now := time.Now()
	l.metrics.synced(began, now, changes, err)
	if err == nil {
		l.health.synced(now)
	}
	return err
}

// attach puts the programs into force once there is something for them to
// find, whatever of it is still missing.
func (l *loop) attach(ctx context.Context) error {
	if l.attached {
		return nil
	}
	l.links.run(ctx)
	if err := l.plane.Attach(); err != nil {
		return err
	}
	l.attached = true
	return nil
}

// describeNode has all services planned anew where the node is another.
func (l *loop) describeNode() {
	node := l.source.describe(l.Config.Node)
	if l.node.Zone != node.Zone || !slices.Equal(l.node.Addresses, node.Addresses) {
		l.source.markAll()
		l.links.wake(time.Now())
	}
	l.node = node
}
