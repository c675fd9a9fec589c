package sweep

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"github.com/knarr-dev/knarr/ctrl/engine"
	"github.com/knarr-dev/knarr/ctrl/gc"
)

const (
	// rediscover is how often to look for kinds that no definition tells of,
	// as those of an aggregated server.
	rediscover = 30 * time.Second
	// patience is how long a kind may take to be listed before the others go
	// on without it.
	patience = 30 * time.Second
	// soon is how long a new definition takes to be served.
	soon = 100 * time.Millisecond
)

// A watcher keeps a graph of all objects. Of those that the engine holds
// anyway it hears from the engine's informers; the others it watches by
// metadata, and keeps nothing of them but the graph.
type watcher struct {
	meta      metadata.Interface
	discovery discovery.DiscoveryInterface
	engine    *engine.Engine
	again     chan struct{} // asks for discovery soon

	suspects func(types.UID) // what to look at, nil for nobody who does
	touched  func(ns string) // a namespace something of which changed

	fewer func(kind schema.GroupResource, ns string) // an object of it has gone

	mu      sync.Mutex
	graph   *gc.Graph
	watches map[schema.GroupVersionResource]*one
	kinds   map[schema.GroupKind]*gc.Resource
}

// one is the watch of one kind.
type one struct {
	*watcher

	resource *gc.Resource
	stop     context.CancelFunc
	born     time.Time
	listed   bool
}

func newWatcher(c Config, e *engine.Engine) *watcher {
	return &watcher{
		meta: c.Metadata(""), discovery: c.Discovery, engine: e, again: make(chan struct{}, 1),
		suspects: func(types.UID) {}, touched: func(string) {}, fewer: func(schema.GroupResource, string) {},
		graph: gc.New(), watches: map[schema.GroupVersionResource]*one{}, kinds: map[schema.GroupKind]*gc.Resource{},
	}
}

// run keeps a watch on every kind there is until ctx ends.
func (w *watcher) run(ctx context.Context) {
	var watches sync.WaitGroup
	defer watches.Wait()
	for {
		resources, err := w.discover()
		if err != nil {
			slog.WarnContext(ctx, "discover kinds", "loop", "sweep", "err", err)
		}
		w.follow(ctx, &watches, resources, err == nil)
		wait := time.NewTimer(rediscover)
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		case <-w.again:
			wait.Reset(soon)
			<-wait.C
		}
	}
}

// rediscover asks for a look at what kinds there are.
func (w *watcher) rediscover() {
	select {
	case w.again <- struct{}{}:
	default: // it is asked for already
	}
}

// discover returns the kinds whose objects can be deleted, each once. With an
// error it may return some of them.
func (w *watcher) discover() ([]*gc.Resource, error) {
	lists, err := discovery.ServerPreferredResources(w.discovery)
	var out []*gc.Resource
	for _, l := range lists {
		gv, bad := schema.ParseGroupVersion(l.GroupVersion)
		if bad != nil {
			return out, bad
		}
		for _, r := range l.APIResources {
			if gv.Group == "events.k8s.io" || r.Name == "events" && gv.Group == "" || !slices.Contains(r.Verbs, "delete") {
				continue // events own nothing and are many
			}
			out = append(out, &gc.Resource{GroupVersionResource: gv.WithResource(r.Name), Kind: r.Kind, Namespaced: r.Namespaced, Verbs: r.Verbs})
		}
	}
	return out, err
}

// follow begins to watch what is new among resources, and, where those are
// all, gives up what is not among them any more.
func (w *watcher) follow(ctx context.Context, running *sync.WaitGroup, resources []*gc.Resource, all bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	there := map[schema.GroupVersionResource]bool{}
	for _, r := range resources {
		if !slices.Contains(r.Verbs, "list") || !slices.Contains(r.Verbs, "watch") {
			continue
		}
		there[r.GroupVersionResource] = true
		if w.watches[r.GroupVersionResource] != nil {
			continue
		}
		ctx, stop := context.WithCancel(ctx)
		o := &one{watcher: w, resource: r, stop: stop, born: time.Now()}
		w.watches[r.GroupVersionResource] = o
		w.kinds[schema.GroupKind{Group: r.Group, Kind: r.Kind}] = r
		running.Go(func() { o.run(ctx) })
	}
	for gvr, o := range w.watches {
		if all && !there[gvr] {
			o.stop()
			delete(w.watches, gvr)
			delete(w.kinds, schema.GroupKind{Group: gvr.Group, Kind: o.resource.Kind})
		}
	}
}

// complete reports whether every kind has been listed, or is not to be waited
// for any longer.
func (w *watcher) complete() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.watches {
		if !o.listed && time.Since(o.born) < patience {
			return false
		}
	}
	return len(w.watches) > 0
}

// resource is what objects of that kind are called, nil where it is not known.
func (w *watcher) resource(apiVersion, kind string) *gc.Resource {
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.kinds[schema.GroupKind{Group: gv.Group, Kind: kind}]
}

// change changes the graph, and passes on what that makes suspect.
func (w *watcher) change(ns string, f func(*gc.Graph)) {
	w.mu.Lock()
	f(w.graph)
	suspects := w.graph.Suspects()
	w.mu.Unlock()
	for _, uid := range suspects {
		w.suspects(uid)
	}
	if ns != "" {
		w.touched(ns)
	}
}

func (o *one) run(ctx context.Context) {
	defer o.stop()
	if !o.engine.Shared(o.resource.GroupVersionResource) {
		lw := &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
				return o.meta.Resource(o.resource.GroupVersionResource).List(ctx, opts)
			},
			WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
				return o.meta.Resource(o.resource.GroupVersionResource).Watch(ctx, opts)
			},
		}
		name := cache.ReflectorOptions{Name: "sweep " + o.resource.GroupResource().String()}
		cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(lw, o.meta), &metav1.PartialObjectMetadata{}, o, name).RunWithContext(ctx)
		return
	}
	shared, err := o.engine.Informers.ForResource(o.resource.GroupVersionResource)
	if err != nil {
		slog.ErrorContext(ctx, "watch", "loop", "sweep", "resource", o.resource.Resource, "err", err)
		return
	}
	reg, err := shared.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    o.put,
		UpdateFunc: func(_, obj any) { o.put(obj) },
		DeleteFunc: o.drop,
	})
	if err != nil {
		slog.ErrorContext(ctx, "watch", "loop", "sweep", "resource", o.resource.Resource, "err", err)
		return
	}
	if cache.WaitFor(ctx, "", reg.HasSyncedChecker()) {
		o.hasListed()
	}
	<-ctx.Done()
	if err := shared.Informer().RemoveEventHandler(reg); err != nil {
		slog.WarnContext(ctx, "remove event handler", "resource", o.resource.Resource, "err", err)
	}
}

func (o *one) put(obj any) {
	m, ok := obj.(metav1.Object)
	if !ok {
		return
	}
	o.change(m.GetNamespace(), func(g *gc.Graph) { g.Put(gc.ObjectOf(o.resource, m)) })
	o.defines()
}

func (o *one) drop(obj any) {
	if last, missed := obj.(cache.DeletedFinalStateUnknown); missed {
		obj = last.Obj
	}
	if m, ok := obj.(metav1.Object); ok {
		o.change(m.GetNamespace(), func(g *gc.Graph) { g.Drop(m.GetUID()) })
		o.fewer(o.resource.GroupResource(), m.GetNamespace())
	}
	o.defines()
}

// defines asks for discovery where a change of an object may mean that there
// is a new kind, or one less.
func (o *one) defines() {
	if o.resource.Resource == "customresourcedefinitions" || o.resource.Resource == "apiservices" {
		o.rediscover()
	}
}

func (o *one) hasListed() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.listed = true
}

// Add is part of cache.ReflectorStore, as are the next.
func (o *one) Add(obj any) error {
	o.put(obj)
	return nil
}

// Update is the same: the graph knows what it had.
func (o *one) Update(obj any) error {
	o.put(obj)
	return nil
}

// Delete is told the last state of the object.
func (o *one) Delete(obj any) error {
	o.drop(obj)
	return nil
}

// Replace is told of all that there is.
func (o *one) Replace(list []any, _ string) error {
	all := make([]gc.Object, 0, len(list))
	for _, obj := range list {
		m, ok := obj.(metav1.Object)
		if !ok {
			return fmt.Errorf("%T is no object", obj)
		}
		all = append(all, gc.ObjectOf(o.resource, m))
	}
	o.change("", func(g *gc.Graph) { g.Replace(o.resource, all) })
	o.hasListed()
	o.defines()
	return nil
}

// Resync has nothing to do.
func (o *one) Resync() error { return nil }

// Transformer drops what the graph has no use for as it comes in.
func (o *one) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		if m, ok := obj.(*metav1.PartialObjectMetadata); ok {
			m.Labels, m.Annotations, m.ManagedFields = nil, nil, nil
		}
		return obj, nil
	}
}
