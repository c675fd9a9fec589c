// Package sweep runs what works on objects of every kind: garbage collection
// and the deletion of namespaces. What they decide, packages ctrl/gc and
// ctrl/namespace decide; here is the watch over all kinds that both live on,
// and what acts for them.
package sweep

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/util/workqueue"

	"github.com/knarr-dev/knarr/ctrl/engine"
)

// The service accounts of the two.
const (
	collectorAccount = "generic-garbage-collector"
	namespaceAccount = "namespace-controller"
)

// A Config is what the loop is given beside the engine.
type Config struct {
	// Metadata acts as a service account of kube-system, the empty one being
	// the process itself, as in engine.Config.
	Metadata  func(account string) metadata.Interface
	Discovery discovery.DiscoveryInterface

	Garbage    bool // collect garbage
	Namespaces bool // empty and finish namespaces that are being deleted

	Tally *Tally // is told what there is of each kind; nil where nobody asks
}

// Loop is the loop for engine.Config.
func Loop(c Config) engine.Loop {
	return engine.Loop{Name: "sweep", Run: func(ctx context.Context, e *engine.Engine) error { return run(ctx, c, e) }}
}

func run(ctx context.Context, c Config, e *engine.Engine) error {
	w := newWatcher(c, e)
	var parts sync.WaitGroup
	if c.Garbage {
		g := &collector{watcher: w, meta: c.Metadata(collectorAccount), client: e.Client(collectorAccount), queue: newQueue[types.UID]()}
		w.suspects = g.queue.Add
		parts.Go(func() { g.run(ctx) })
	}
	if c.Namespaces {
		n := newSpaces(c, e, w)
		w.touched = n.touched
		parts.Go(func() { n.run(ctx) })
	}
	if c.Tally != nil {
		c.Tally.begin(w)
		defer c.Tally.begin(nil)
	}
	w.run(ctx)
	parts.Wait()
	return nil
}

// A queue is what both work off. A failure is tried again after 5 ms, then
// twice as long each time up to a minute.
func newQueue[T comparable]() workqueue.TypedRateLimitingInterface[T] {
	return workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[T](5*time.Millisecond, time.Minute))
}

// work has n workers look at what is queued until ctx ends. A look that
// returns a time is looked at again then.
func work[T comparable](ctx context.Context, q workqueue.TypedRateLimitingInterface[T], n int, look func(context.Context, T) (time.Duration, error)) {
	var workers sync.WaitGroup
	for range n {
		workers.Go(func() {
			for item, closed := q.Get(); !closed; item, closed = q.Get() {
				after, err := guarded(ctx, item, look)
				switch {
				case err != nil:
					q.AddRateLimited(item)
				case after > 0:
					q.Forget(item)
					q.AddAfter(item, after)
				default:
					q.Forget(item)
				}
				q.Done(item)
			}
		})
	}
	<-ctx.Done()
	q.ShutDown()
	workers.Wait()
}

func guarded[T comparable](ctx context.Context, item T, look func(context.Context, T) (time.Duration, error)) (after time.Duration, err error) {
	defer func() {
		if p := recover(); p != nil {
			slog.ErrorContext(ctx, "panic", "loop", "sweep", "item", item, "err", p)
			after = time.Minute
		}
	}()
	if ctx.Err() != nil {
		return 0, nil
	}
	return look(ctx, item)
}
