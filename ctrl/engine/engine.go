// Package engine runs controllers: it queues the keys that a change wakes,
// shows the controller a World that has its own last writes in it, and
// carries out its plans. It is the only part of ctrl that does I/O.
//
// What does not fit a controller, as garbage collection over kinds that are
// known only at run time, runs beside them as a Loop.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"

	"github.com/knarr-dev/knarr/ctrl"
)

// A Config is all that an engine is given.
type Config struct {
	Controllers []ctrl.Erased
	Loops       []Loop

	// Informers may be shared with other parts of the process. The engine
	// starts what it asks of it. Its objects need no managed fields: see Trim.
	Informers informers.SharedInformerFactory

	// Client acts as a service account of kube-system. The empty account is
	// the process itself, which lists, watches and holds the lease.
	Client func(account string) kubernetes.Interface

	Lease   *Lease                // nil where there is but one engine
	Metrics prometheus.Registerer // nil for none
}

// A Loop is a part that is no controller. Run returns when ctx ends.
type Loop struct {
	Name string
	Run  func(ctx context.Context, e *Engine) error
}

// An Engine is one run of the controllers, from election to the loss of the
// lease.
type Engine struct {
	Config

	metrics *metrics
	narrow  map[ctrl.Filter]informers.SharedInformerFactory

	runners []*runner

	mu      sync.Mutex
	sources map[read]*source
}

// A read is what one informer holds.
type read struct {
	kind  reflect.Type
	where ctrl.Filter
}

// Run runs the controllers until ctx ends, and then lets their current
// actions come to an end. With a Lease it returns an error when it loses it:
// the process must not go on as if it led.
func Run(ctx context.Context, c Config) error {
	m := newMetrics()
	if c.Metrics != nil {
		if err := c.Metrics.Register(m); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
		defer c.Metrics.Unregister(m)
	}
	lead := func(ctx context.Context) error {
		e := &Engine{Config: c, metrics: m, narrow: map[ctrl.Filter]informers.SharedInformerFactory{}, sources: map[read]*source{}}
		return e.run(ctx)
	}
	if c.Lease == nil {
		return lead(ctx)
	}
	return c.Lease.hold(ctx, c.Client(""), lead)
}

func (e *Engine) run(ctx context.Context) error {
	e.runners = make([]*runner, len(e.Controllers))
	for i := range e.Controllers {
		r, err := e.newRunner(&e.Controllers[i])
		if err != nil {
			return fmt.Errorf("controller %s: %w", e.Controllers[i].Name, err)
		}
		e.runners[i] = r
	}
	defer e.close()
	if err := e.listen(); err != nil {
		return err
	}
	e.Start(ctx)

	var parts sync.WaitGroup
	failed := make(chan error, len(e.runners)+len(e.Loops))
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	for _, r := range e.runners {
		parts.Go(func() { r.run(ctx) })
	}
	for _, l := range e.Loops {
		parts.Go(func() {
			if err := l.Run(ctx, e); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("loop %s: %w", l.Name, err)
				stop(err)
			}
		})
	}
	parts.Wait()
	close(failed)
	var errs []error
	for err := range failed {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Start starts the informers that were asked for since the last Start.
func (e *Engine) Start(ctx context.Context) {
	e.Informers.StartWithContext(ctx)
	for _, f := range e.narrow {
		f.StartWithContext(ctx)
	}
}

// Wake has a controller look at key, of which a Loop knows something new.
func (e *Engine) Wake(controller string, key ctrl.Key) {
	for _, r := range e.runners {
		if r.ctrl.Name == controller {
			r.wake(key)
		}
	}
}

// Shared reports whether the engine holds every object of a kind in memory
// already, so that a Loop need not watch it too.
func (e *Engine) Shared(gvr schema.GroupVersionResource) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for r := range e.sources {
		if r.where == (ctrl.Filter{}) && e.sources[r].gvr == gvr {
			return true
		}
	}
	return false
}

// source is the informer for r, and the kind's indexes on it.
func (e *Engine) source(r ctrl.Read) (*source, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	key := read{r.Kind, r.Where}
	s := e.sources[key]
	if s == nil {
		gvr, err := resourceOf(r.Kind)
		if err != nil {
			return nil, err
		}
		generic, err := e.factory(r.Where).ForResource(gvr)
		if err != nil {
			return nil, err
		}
		s = newSource(gvr, generic.Informer())
		e.sources[key] = s
	}
	return s, s.index(r.By)
}

// factory makes informers for what where lets through.
func (e *Engine) factory(where ctrl.Filter) informers.SharedInformerFactory {
	if where == (ctrl.Filter{}) {
		return e.Informers
	}
	if f := e.narrow[where]; f != nil {
		return f
	}
	f := narrowed(e.Client(""), where)
	e.narrow[where] = f
	return f
}

// listen has all sources begin to tell their readers.
func (e *Engine) listen() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.sources {
		if err := s.listen(); err != nil {
			return fmt.Errorf("listen to %s: %w", s.gvr.Resource, err)
		}
	}
	return nil
}

func (e *Engine) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.sources {
		if s.registration == nil {
			continue
		}
		if err := s.informer.RemoveEventHandler(s.registration); err != nil {
			slog.Warn("remove event handler", "resource", s.gvr.Resource, "err", err)
		}
	}
}
