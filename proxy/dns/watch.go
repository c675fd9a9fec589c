package dns

import (
	"context"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// A feed keeps one kind of object in an index. It is what a reflector takes
// for its store: with an informer's, every object would be there twice.
type feed[T metav1.Object] struct {
	set  func(T)
	drop func(types.NamespacedName)
	have func() []types.NamespacedName
	trim func(T) // of what set does not look at
	done atomic.Bool
}

// Add is part of cache.ReflectorStore.
func (f *feed[T]) Add(obj any) error {
	f.set(obj.(T))
	return nil
}

// Update is part of cache.ReflectorStore.
func (f *feed[T]) Update(obj any) error { return f.Add(obj) }

// Delete is part of cache.ReflectorStore.
func (f *feed[T]) Delete(obj any) error {
	f.drop(named(obj.(T)))
	return nil
}

// Replace is part of cache.ReflectorStore. What stays is never away.
func (f *feed[T]) Replace(list []any, _ string) error {
	present := sets.New[types.NamespacedName]()
	for _, obj := range list {
		present.Insert(named(obj.(T)))
		f.set(obj.(T))
	}
	for _, key := range f.have() {
		if !present.Has(key) {
			f.drop(key)
		}
	}
	f.done.Store(true)
	return nil
}

// Resync is part of cache.ReflectorStore.
func (f *feed[T]) Resync() error { return nil }

// Transformer is part of cache.TransformingStore: it lets the first list take
// less memory while it comes in.
func (f *feed[T]) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		if o, ok := obj.(T); ok {
			o.SetManagedFields(nil)
			o.SetAnnotations(nil)
			f.trim(o)
		}
		return obj, nil
	}
}

func named(obj metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: obj.GetNamespace(), Name: obj.GetName()}
}

// A watcher keeps an index as the API server says.
type watcher struct {
	client     kubernetes.Interface
	services   *feed[*corev1.Service]
	slices     *feed[*discoveryv1.EndpointSlice]
	namespaces *feed[*corev1.Namespace]
}

func newWatcher(client kubernetes.Interface, x *Index, changed func(*discoveryv1.EndpointSlice)) *watcher {
	w := &watcher{client: client}
	w.services = &feed[*corev1.Service]{
		set: x.SetService, drop: x.DropService, have: x.Services,
		trim: func(s *corev1.Service) { s.Labels, s.Spec.Selector, s.Status = nil, nil, corev1.ServiceStatus{} },
	}
	w.slices = &feed[*discoveryv1.EndpointSlice]{
		set: func(s *discoveryv1.EndpointSlice) {
			x.SetSlice(s)
			if w.slices.done.Load() {
				changed(s)
			}
		},
		drop: x.DropSlice, have: x.Slices,
		trim: func(s *discoveryv1.EndpointSlice) {
			for i := range s.Endpoints {
				e := &s.Endpoints[i]
				e.TargetRef, e.NodeName, e.Zone, e.Hints, e.DeprecatedTopology = nil, nil, nil, nil, nil
			}
		},
	}
	w.namespaces = &feed[*corev1.Namespace]{
		set:  func(n *corev1.Namespace) { x.SetNamespace(n.Name) },
		drop: func(n types.NamespacedName) { x.DropNamespace(n.Name) }, have: x.Namespaces,
		trim: func(n *corev1.Namespace) { n.Labels = nil },
	}
	return w
}

// missing names what is not yet known.
func (w *watcher) missing() (kinds []string) {
	for kind, done := range map[string]*atomic.Bool{"services": &w.services.done, "endpointslices": &w.slices.done, "namespaces": &w.namespaces.done} {
		if !done.Load() {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// synced tells whether all was known once, which is enough to answer.
func (w *watcher) synced() bool {
	return w.services.done.Load() && w.slices.done.Load() && w.namespaces.done.Load()
}

// lister lists and watches objects of one kind.
type lister[L runtime.Object] interface {
	List(ctx context.Context, opts metav1.ListOptions) (L, error)
	Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error)
}

// start follows the API server until ctx ends.
func (w *watcher) start(ctx context.Context) {
	follow(ctx, w, lister[*corev1.ServiceList](w.client.CoreV1().Services("")), &corev1.Service{}, w.services)
	follow(ctx, w, lister[*discoveryv1.EndpointSliceList](w.client.DiscoveryV1().EndpointSlices("")), &discoveryv1.EndpointSlice{}, w.slices)
	follow(ctx, w, lister[*corev1.NamespaceList](w.client.CoreV1().Namespaces()), &corev1.Namespace{}, w.namespaces)
}

// maxBackoff is how long the API server is left alone while it does not
// answer: not long, as there are few of us and names should be right soon.
const maxBackoff = 5 * time.Second

func follow[L runtime.Object](ctx context.Context, w *watcher, from lister[L], kind runtime.Object, to cache.ReflectorStore) {
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return from.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return from.Watch(ctx, o)
		},
	}
	r := cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(lw, w.client), kind, to, cache.ReflectorOptions{
		Name:    "dns",
		Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 6, Cap: maxBackoff},
	})
	go r.RunWithContext(ctx)
}
