package sched

import (
	"iter"
	"reflect"

	"github.com/knarr-dev/knarr/apis"
)

// Objects are the things of the cluster besides its nodes and pods. A kind
// that no plugin has asked for by its Reads has none.
type Objects interface {
	Find(kind reflect.Type, namespace, name string) (apis.Object, bool)
	// All goes through the objects of a namespace, or of the whole cluster
	// where it is empty.
	All(kind reflect.Type, namespace string) iter.Seq[apis.Object]
}

// Get finds an object of type T, a pointer to an API type; namespace is
// empty for kinds that have none.
func Get[T apis.Object](o Objects, namespace, name string) (t T, ok bool) {
	if found, ok := o.Find(reflect.TypeFor[T](), namespace, name); ok {
		t, ok = found.(T)
		return t, ok
	}
	return t, false
}

// In goes through the objects of type T in a namespace, or in all where it is
// empty.
func In[T apis.Object](o Objects, namespace string) iter.Seq[T] {
	return func(yield func(T) bool) {
		for found := range o.All(reflect.TypeFor[T](), namespace) {
			if t, ok := found.(T); ok && !yield(t) {
				return
			}
		}
	}
}
