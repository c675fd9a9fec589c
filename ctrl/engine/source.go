package engine

import (
	"fmt"
	"log/slog"
	"reflect"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/ctrl"
)

// A source is one informer. All controllers that read it share one event
// handler, so that a change costs one goroutine's time and no copies.
type source struct {
	gvr          schema.GroupVersionResource
	informer     cache.SharedIndexInformer
	registration cache.ResourceEventHandlerRegistration

	mu      sync.Mutex
	readers []reader
	waiting map[waiter]bool // whom the next change brings closer to what they wait for
}

type reader struct {
	runner *runner
	wakes  func(w ctrl.World, old, obj apis.Object) []ctrl.Key
}

type waiter struct {
	runner *runner
	key    ctrl.Key
}

// resourceOf is the resource of a built-in kind. Their plurals are regular.
func resourceOf(kind reflect.Type) (schema.GroupVersionResource, error) {
	obj, ok := reflect.TypeAssert[runtime.Object](reflect.New(kind.Elem()))
	if !ok {
		return schema.GroupVersionResource{}, fmt.Errorf("%v is no API object", kind)
	}
	kinds, _, err := scheme.Scheme.ObjectKinds(obj)
	if err != nil {
		return schema.GroupVersionResource{}, err
	}
	gvr, _ := meta.UnsafeGuessKindToResource(kinds[0])
	return gvr, nil
}

// narrowed makes informers that see only what where lets through.
func narrowed(client kubernetes.Interface, where ctrl.Filter) informers.SharedInformerFactory {
	return informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithNamespace(where.Namespace),
		informers.WithTransform(Trim),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.FieldSelector = where.Field }))
}

// Trim drops from an object what no controller reads and much memory holds.
// It is a cache.TransformFunc for the factory in Config.
func Trim(obj any) (any, error) {
	if o, ok := obj.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	return obj, nil
}

func newSource(gvr schema.GroupVersionResource, informer cache.SharedIndexInformer) *source {
	return &source{gvr: gvr, informer: informer, waiting: map[waiter]bool{}}
}

// listen begins to tell the readers of what there is and of changes. Who
// becomes a reader later is not told of what the informer, which others may
// have started, has already: so listen comes when all readers are there.
func (s *source) listen() (err error) {
	s.registration, err = s.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { s.changed(nil, object(obj)) },
		UpdateFunc: func(old, obj any) {
			if was, is := object(old), object(obj); was.GetResourceVersion() != is.GetResourceVersion() {
				s.changed(was, is)
			}
		},
		DeleteFunc: func(obj any) { s.changed(object(obj), nil) },
	})
	return err
}

// object is what an informer tells of, also where it missed the deletion.
func object(obj any) apis.Object {
	if last, missed := obj.(cache.DeletedFinalStateUnknown); missed {
		obj = last.Obj
	}
	o, _ := obj.(apis.Object)
	return o
}

// index adds the indexes that are not there yet.
func (s *source) index(by []*ctrl.Index) error {
	have := s.informer.GetIndexer().GetIndexers()
	for _, ix := range by {
		if _, ok := have[indexName(ix)]; ok {
			continue
		}
		of := func(obj any) ([]string, error) { return ix.Of(obj.(apis.Object)), nil }
		if err := s.informer.AddIndexers(cache.Indexers{indexName(ix): of}); err != nil {
			return fmt.Errorf("index %s by %s: %w", s.gvr.Resource, ix.Name, err)
		}
	}
	return nil
}

// indexName keeps our indexes apart from those that others add to a shared informer.
func indexName(ix *ctrl.Index) string {
	if ix == ctrl.ByNamespace {
		return cache.NamespaceIndex
	}
	return "ctrl/" + ix.Name
}

// changed wakes whom a change concerns. The store has it already.
func (s *source) changed(old, obj apis.Object) {
	s.mu.Lock()
	readers := s.readers
	var waiting map[waiter]bool // which no wait adds to any more
	if len(s.waiting) > 0 {
		waiting, s.waiting = s.waiting, map[waiter]bool{}
	}
	s.mu.Unlock()
	for w := range waiting {
		w.runner.wake(w.key)
	}
	for _, r := range readers {
		r.tell(old, obj)
	}
}

func (r reader) tell(old, obj apis.Object) {
	defer func() {
		if p := recover(); p != nil {
			slog.Error("panic", "controller", r.runner.ctrl.Name, "err", p)
		}
	}()
	for _, key := range r.wakes(r.runner.world(time.Time{}, nil), old, obj) {
		r.runner.wake(key)
	}
}

func (s *source) read(r reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers = append(s.readers, r)
}

// wait has w woken by the next change.
func (s *source) wait(w waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[w] = true
}

// revision is how far the store has come: every change up to it is in.
func (s *source) revision() int64 {
	rev, err := strconv.ParseInt(s.informer.GetStore().LastStoreSyncResourceVersion(), 10, 64)
	if err != nil {
		return 0
	}
	return rev
}

// get returns nil where the store has no such object.
func (s *source) get(key ctrl.Key) any {
	obj, ok, err := s.informer.GetStore().GetByKey(key.String())
	if err != nil || !ok {
		return nil
	}
	return obj
}

// A view is what one controller sees: ctrl.Lookup over its sources.
type view map[reflect.Type]*source

// Get is nil too for a kind that the controller does not say it reads; its
// examples then fail, as ctrltest knows the Reads too.
func (v view) Get(kind reflect.Type, namespace, name string) any {
	s := v[kind]
	if s == nil {
		return nil
	}
	return s.get(ctrl.Key{Namespace: namespace, Name: name})
}

func (v view) Find(kind reflect.Type, by *ctrl.Index, value string) []any {
	s := v[kind]
	if s == nil {
		return nil
	}
	if by == nil {
		return s.informer.GetStore().List()
	}
	objs, err := s.informer.GetIndexer().ByIndex(indexName(by), value)
	if err != nil {
		slog.Error("index that no Read declares", "resource", s.gvr.Resource, "index", by.Name, "err", err)
	}
	return objs
}
