package ctrl

import (
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/apis"
)

// A World is the cluster as far as it has been seen: of no kind older than
// what the engine itself last wrote for the key at hand. Its objects are
// shared and never to be changed; a plan changes copies.
type World struct {
	Now  time.Time
	Memo any // what the last plan for the key asked to be remembered
	Seen Lookup
}

// A Lookup finds objects among those that the controller's Reads name.
type Lookup interface {
	// Get returns nil where there is no such object.
	Get(kind reflect.Type, namespace, name string) any
	// Find returns the objects that by has under value, in no order; all of
	// the kind where by is nil.
	Find(kind reflect.Type, by *Index, value string) []any
}

// An Index groups the objects of a kind under the values that Of gives them.
type Index struct {
	Name string
	Of   func(apis.Object) []string
}

// The indexes that several controllers share.
var (
	// ByNamespace stands ready for every kind.
	ByNamespace = &Index{"namespace", func(o apis.Object) []string { return []string{o.GetNamespace()} }}
	// ByOwner is by the UID of the controller, and OrphansOf a namespace.
	ByOwner = &Index{"controller", func(o apis.Object) []string {
		if ref := metav1.GetControllerOfNoCopy(o); ref != nil {
			return []string{string(ref.UID)}
		}
		return []string{OrphansOf(o.GetNamespace())}
	}}
	// ByNode is by the node that a pod is bound to.
	ByNode = &Index{"node", func(o apis.Object) []string {
		if p, ok := o.(*corev1.Pod); ok && p.Spec.NodeName != "" {
			return []string{p.Spec.NodeName}
		}
		return nil
	}}
)

// OrphansOf is where ByOwner has the objects of ns that nothing controls.
func OrphansOf(ns string) string { return "orphans/" + ns }

// Get returns the T of that name, the nil T where there is none.
func Get[T apis.Object](w World, ns, name string) T {
	t, _ := w.Seen.Get(reflect.TypeFor[T](), ns, name).(T)
	return t
}

// Find returns the Ts that by has under value, in no order.
func Find[T apis.Object](w World, by *Index, value string) []T {
	found := w.Seen.Find(reflect.TypeFor[T](), by, value)
	out := make([]T, len(found))
	for i, o := range found {
		out[i] = o.(T)
	}
	return out
}

// In returns the Ts in namespace ns, in no order.
func In[T apis.Object](w World, ns string) []T { return Find[T](w, ByNamespace, ns) }

// All returns every T, in no order.
func All[T apis.Object](w World) []T { return Find[T](w, nil, "") }

// Owned returns the Ts that owner controls, and after them those of its
// namespace that nothing controls. It needs the index ByOwner.
func Owned[T apis.Object](w World, owner apis.Object) []T {
	return append(Find[T](w, ByOwner, string(owner.GetUID())), Find[T](w, ByOwner, OrphansOf(owner.GetNamespace()))...)
}
