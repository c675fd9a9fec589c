package loop

import (
	"context"
	"fmt"
	"iter"
	"reflect"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/sched"
)

// A kind can be asked for by plugins.
type kind struct {
	informer func(informers.SharedInformerFactory) cache.SharedIndexInformer
	// storage tells that pods which wait for volumes wait for its changes.
	storage bool
}

var kinds = map[reflect.Type]kind{
	reflect.TypeFor[*corev1.Namespace](): {informer: func(f informers.SharedInformerFactory) cache.SharedIndexInformer {
		return f.Core().V1().Namespaces().Informer()
	}},
	reflect.TypeFor[*corev1.Service](): {informer: func(f informers.SharedInformerFactory) cache.SharedIndexInformer {
		return f.Core().V1().Services().Informer()
	}},
	reflect.TypeFor[*corev1.ReplicationController](): {informer: func(f informers.SharedInformerFactory) cache.SharedIndexInformer {
		return f.Core().V1().ReplicationControllers().Informer()
	}},
	reflect.TypeFor[*appsv1.ReplicaSet](): {informer: func(f informers.SharedInformerFactory) cache.SharedIndexInformer {
		return f.Apps().V1().ReplicaSets().Informer()
	}},
	reflect.TypeFor[*appsv1.StatefulSet](): {informer: func(f informers.SharedInformerFactory) cache.SharedIndexInformer {
		return f.Apps().V1().StatefulSets().Informer()
	}},
	reflect.TypeFor[*policyv1.PodDisruptionBudget](): {informer: func(f informers.SharedInformerFactory) cache.SharedIndexInformer {
		return f.Policy().V1().PodDisruptionBudgets().Informer()
	}},
	reflect.TypeFor[*corev1.PersistentVolumeClaim](): {storage: true, informer: func(f informers.SharedInformerFactory) cache.SharedIndexInformer {
		return f.Core().V1().PersistentVolumeClaims().Informer()
	}},
	reflect.TypeFor[*corev1.PersistentVolume](): {storage: true, informer: func(f informers.SharedInformerFactory) cache.SharedIndexInformer {
		return f.Core().V1().PersistentVolumes().Informer()
	}},
	reflect.TypeFor[*storagev1.StorageClass](): {storage: true, informer: func(f informers.SharedInformerFactory) cache.SharedIndexInformer {
		return f.Storage().V1().StorageClasses().Informer()
	}},
	reflect.TypeFor[*storagev1.CSINode](): {storage: true, informer: func(f informers.SharedInformerFactory) cache.SharedIndexInformer {
		return f.Storage().V1().CSINodes().Informer()
	}},
	reflect.TypeFor[*storagev1.CSIDriver](): {storage: true, informer: func(f informers.SharedInformerFactory) cache.SharedIndexInformer {
		return f.Storage().V1().CSIDrivers().Informer()
	}},
	reflect.TypeFor[*storagev1.CSIStorageCapacity](): {storage: true, informer: func(f informers.SharedInformerFactory) cache.SharedIndexInformer {
		return f.Storage().V1().CSIStorageCapacities().Informer()
	}},
	reflect.TypeFor[*storagev1.VolumeAttachment](): {storage: true, informer: func(f informers.SharedInformerFactory) cache.SharedIndexInformer {
		return f.Storage().V1().VolumeAttachments().Informer()
	}},
}

// objects are the kinds that plugins have asked for, as the informers have
// them, with what the loop is about to write laid over them. It is for one
// goroutine.
type objects struct {
	factory informers.SharedInformerFactory
	begin   func()            // starts what was added to the factory
	changed func(apis.Object) // of kinds that pods wait for; from any goroutine

	stores map[reflect.Type]cache.Indexer
	over   map[name]apis.Object
}

type name struct {
	kind            reflect.Type
	namespace, name string
}

func nameOf(o apis.Object) name {
	return name{reflect.TypeOf(o), o.GetNamespace(), o.GetName()}
}

func newObjects(f informers.SharedInformerFactory, begin func(), changed func(apis.Object)) *objects {
	return &objects{factory: f, begin: begin, changed: changed, stores: map[reflect.Type]cache.Indexer{}, over: map[name]apis.Object{}}
}

// need sees to it that the kinds are there that plugins ask for on account of
// p. The first pod that needs some waits, and all others with it, until they
// are complete; that is once for each kind.
func (o *objects) need(ctx context.Context, p *sched.Pod, plugins []sched.Erased) error {
	var wait []cache.DoneChecker
	for i := range plugins {
		pl := &plugins[i]
		if pl.ReadsFor == nil || !pl.ReadsFor(p) {
			continue
		}
		for _, obj := range pl.Reads {
			t := reflect.TypeOf(obj)
			if o.stores[t] != nil {
				continue
			}
			synced, err := o.add(t)
			if err != nil {
				return fmt.Errorf("plugin %s: %w", pl.Name, err)
			}
			wait = append(wait, synced...)
		}
	}
	if len(wait) == 0 {
		return nil
	}
	o.begin()
	if !cache.WaitFor(ctx, "", wait...) {
		return ctx.Err()
	}
	return nil
}

// add asks the factory for a kind, and returns what tells that it is complete.
func (o *objects) add(t reflect.Type) ([]cache.DoneChecker, error) {
	k, ok := kinds[t]
	if !ok {
		return nil, fmt.Errorf("no informer for %v", t)
	}
	informer := k.informer(o.factory)
	o.stores[t] = informer.GetIndexer()
	synced := []cache.DoneChecker{informer.HasSyncedChecker()}
	if !k.storage {
		return synced, nil
	}
	tell := func(obj any) {
		if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = gone.Obj
		}
		if obj, ok := obj.(apis.Object); ok {
			o.changed(obj)
		}
	}
	handled, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: tell, UpdateFunc: func(_, obj any) { tell(obj) }, DeleteFunc: tell})
	if err != nil {
		return nil, fmt.Errorf("watch %v: %w", t, err)
	}
	return append(synced, handled.HasSyncedChecker()), nil
}

// Find returns the object as it is about to be.
func (o *objects) Find(t reflect.Type, namespace, n string) (apis.Object, bool) {
	if obj, ok := o.over[name{t, namespace, n}]; ok {
		return obj, true
	}
	store := o.stores[t]
	if store == nil {
		return nil, false
	}
	key := n
	if namespace != "" {
		key = namespace + "/" + n
	}
	found, ok, err := store.GetByKey(key)
	if err != nil || !ok {
		return nil, false
	}
	obj, ok := found.(apis.Object)
	return obj, ok
}

// All goes through the objects as they are about to be.
func (o *objects) All(t reflect.Type, namespace string) iter.Seq[apis.Object] {
	return func(yield func(apis.Object) bool) {
		for _, found := range o.list(t, namespace) {
			obj, ok := found.(apis.Object)
			if !ok {
				continue
			}
			if over, ok := o.over[nameOf(obj)]; ok {
				obj = over
			}
			if !yield(obj) {
				return
			}
		}
	}
}

func (o *objects) list(t reflect.Type, namespace string) []any {
	store := o.stores[t]
	switch {
	case store == nil:
		return nil
	case namespace == "":
		return store.List()
	}
	found, err := store.ByIndex(cache.NamespaceIndex, namespace)
	if err != nil {
		return nil // the factory's informers all have the index
	}
	return found
}

// assume lays objects over what the informers have.
func (o *objects) assume(list ...apis.Object) {
	for _, obj := range list {
		o.over[nameOf(obj)] = obj
	}
}

// forget takes off what was laid over.
func (o *objects) forget(list ...apis.Object) {
	for _, obj := range list {
		delete(o.over, nameOf(obj))
	}
}

// saw takes off what was laid over an object once the informer has something
// newer.
func (o *objects) saw(obj apis.Object) {
	if over, ok := o.over[nameOf(obj)]; ok && revision(obj) > revision(over) {
		delete(o.over, nameOf(obj))
	}
}

// wrote lays over the object what the server has made of it, unless the
// informer has that already.
func (o *objects) wrote(obj apis.Object) {
	delete(o.over, nameOf(obj))
	if seen, ok := o.Find(reflect.TypeOf(obj), obj.GetNamespace(), obj.GetName()); ok && revision(seen) >= revision(obj) {
		return
	}
	o.assume(obj)
}

// revision orders the versions of one object.
func revision(o apis.Object) uint64 {
	n, err := strconv.ParseUint(o.GetResourceVersion(), 10, 64)
	if err != nil {
		return 0 // not from a server
	}
	return n
}
