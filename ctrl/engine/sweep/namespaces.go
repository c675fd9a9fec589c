package sweep

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/knarr-dev/knarr/ctrl/engine"
	"github.com/knarr-dev/knarr/ctrl/gc"
	"github.com/knarr-dev/knarr/ctrl/namespace"
)

const (
	emptiers = 10 // namespaces that are emptied at a time
	lists    = 8  // requests at a time for one of them
)

// spaces empties the namespaces that are being deleted, and lets them go.
type spaces struct {
	*watcher

	meta     metadata.Interface
	client   kubernetes.Interface
	informer cache.SharedIndexInformer
	queue    workqueue.TypedRateLimitingInterface[string]

	mu     sync.Mutex
	states map[string]*emptying // of those that are being deleted
}

// An emptying is what is remembered of one namespace between two looks.
type emptying struct {
	since, said time.Time
	asked       map[schema.GroupVersionResource]time.Time
	failed      map[schema.GroupVersionResource]error
}

func newSpaces(c Config, e *engine.Engine, w *watcher) *spaces {
	return &spaces{
		watcher: w, meta: c.Metadata(namespaceAccount), client: e.Client(namespaceAccount), queue: newQueue[string](),
		informer: e.Informers.Core().V1().Namespaces().Informer(), states: map[string]*emptying{},
	}
}

func (s *spaces) run(ctx context.Context) {
	reg, err := s.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    s.told,
		UpdateFunc: func(_, obj any) { s.told(obj) },
		DeleteFunc: s.forget,
	})
	if err != nil {
		slog.ErrorContext(ctx, "watch namespaces", "loop", "sweep", "err", err)
		return
	}
	s.engine.Start(ctx)
	work(ctx, s.queue, emptiers, s.look)
	if err := s.informer.RemoveEventHandler(reg); err != nil {
		slog.WarnContext(ctx, "remove event handler", "resource", "namespaces", "err", err)
	}
}

func (s *spaces) told(obj any) {
	ns, ok := obj.(*corev1.Namespace)
	if !ok || ns.DeletionTimestamp == nil {
		return
	}
	s.mu.Lock()
	if s.states[ns.Name] == nil {
		s.states[ns.Name] = &emptying{since: time.Now(), asked: map[schema.GroupVersionResource]time.Time{}, failed: map[schema.GroupVersionResource]error{}}
	}
	s.mu.Unlock()
	s.queue.Add(ns.Name)
}

func (s *spaces) forget(obj any) {
	if last, missed := obj.(cache.DeletedFinalStateUnknown); missed {
		obj = last.Obj
	}
	if ns, ok := obj.(*corev1.Namespace); ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.states, ns.Name)
	}
}

// touched looks at a namespace of which something changed, if it is being deleted.
func (s *spaces) touched(ns string) {
	if s.state(ns) != nil {
		s.queue.Add(ns)
	}
}

func (s *spaces) state(ns string) *emptying {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.states[ns]
}

func (s *spaces) look(ctx context.Context, name string) (time.Duration, error) {
	st := s.state(name)
	obj, ok, err := s.informer.GetStore().GetByKey(name)
	if err != nil || !ok || st == nil {
		return 0, err
	}
	ns, ok := obj.(*corev1.Namespace)
	if !ok || !slices.Contains(ns.Spec.Finalizers, namespace.Finalizer) {
		return 0, nil
	}
	if !s.complete() {
		return soon, nil
	}
	in := namespace.Input{
		Namespace: ns, Contents: s.seen(name), Failed: st.failed,
		Since: st.since, Said: st.said, Asked: st.asked, Now: time.Now(),
	}
	v := namespace.Decide(in)
	if v.Verify {
		if in.Contents, in.Discovery, err = s.verify(ctx, name); err != nil {
			return 0, err
		}
		in.Verified = true
		v = namespace.Decide(in)
	}
	after, err := s.do(ctx, ns, st, v)
	if err != nil && !apierrors.IsConflict(err) {
		slog.WarnContext(ctx, "empty namespace", "obj", "Namespace/"+name, "err", err)
	}
	return after, err
}

// seen is what the graph knows of the namespace.
func (s *spaces) seen(ns string) (out []namespace.Content) {
	s.watcher.mu.Lock()
	defer s.watcher.mu.Unlock()
	for r, c := range s.graph.In(ns) {
		out = append(out, namespace.Content{GroupVersionResource: r.GroupVersionResource, Count: c.Count, Alive: c.Alive, Finalizers: maps.Clone(c.Finalizers)})
	}
	return out
}

// verify asks the server itself, for every kind there is now.
func (s *spaces) verify(ctx context.Context, ns string) (out []namespace.Content, partly, err error) {
	resources, partly := s.discover()
	contents, errs := make([]namespace.Content, len(resources)), make([]error, len(resources))
	each(resources, func(i int, r *gc.Resource) {
		if r.Namespaced && slices.Contains(r.Verbs, "list") {
			contents[i], errs[i] = s.count(ctx, r, ns)
		}
	})
	for i, err := range errs {
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, nil, err
		}
		if contents[i].Count > 0 {
			out = append(out, contents[i])
		}
	}
	return out, partly, nil
}

// count is what there is of r in ns, as far as the first hundreds tell.
func (s *spaces) count(ctx context.Context, r *gc.Resource, ns string) (namespace.Content, error) {
	c := namespace.Content{GroupVersionResource: r.GroupVersionResource, Finalizers: map[string]int{}}
	list, err := s.meta.Resource(r.GroupVersionResource).Namespace(ns).List(ctx, metav1.ListOptions{Limit: 500})
	if err != nil {
		return c, err
	}
	for i := range list.Items {
		c.Count++
		if list.Items[i].DeletionTimestamp == nil {
			c.Alive++
		}
		for _, f := range list.Items[i].Finalizers {
			c.Finalizers[f]++
		}
	}
	return c, nil
}

// each calls f for all, some at a time.
func each[T any](all []T, f func(int, T)) {
	var running sync.WaitGroup
	slots := make(chan struct{}, lists)
	for i, t := range all {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			f(i, t)
		})
	}
	running.Wait()
}

// do does what was decided. What could not be deleted is told at the next look.
func (s *spaces) do(ctx context.Context, ns *corev1.Namespace, st *emptying, v namespace.Verdict) (time.Duration, error) {
	if v.Finalize {
		out := ns.DeepCopy()
		out.Spec.Finalizers = slices.DeleteFunc(out.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == namespace.Finalizer })
		_, err := s.client.CoreV1().Namespaces().Finalize(ctx, out, metav1.UpdateOptions{})
		if apierrors.IsNotFound(err) {
			err = nil
		}
		return 0, err
	}
	errs := make([]error, len(v.Delete))
	each(v.Delete, func(i int, gvr schema.GroupVersionResource) { errs[i] = s.empty(ctx, gvr, ns.Name) })
	var failed error
	for i, gvr := range v.Delete {
		delete(st.failed, gvr)
		if errs[i] != nil {
			st.failed[gvr], failed = errs[i], errs[i]
		} else {
			st.asked[gvr] = time.Now()
		}
	}
	if v.Status != nil {
		if _, err := s.client.CoreV1().Namespaces().UpdateStatus(ctx, v.Status, metav1.UpdateOptions{}); err != nil {
			return 0, err
		}
		st.said = time.Now()
	}
	return v.After, failed
}

// empty deletes all of a resource in a namespace, one by one where it cannot
// be done at once. Nothing is left for the garbage collector to orphan.
func (s *spaces) empty(ctx context.Context, gvr schema.GroupVersionResource, ns string) error {
	of := s.meta.Resource(gvr).Namespace(ns)
	opts := metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationBackground)}
	err := of.DeleteCollection(ctx, opts, metav1.ListOptions{})
	if !apierrors.IsMethodNotSupported(err) && !apierrors.IsNotFound(err) {
		return err
	}
	list, err := of.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range list.Items {
		if err := of.Delete(ctx, list.Items[i].Name, opts); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}
