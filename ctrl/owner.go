package ctrl

import (
	"encoding/json"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/apis"
)

// Owns reports whether owner is the controller of obj.
func Owns(owner, obj metav1.Object) bool {
	ref := metav1.GetControllerOfNoCopy(obj)
	return ref != nil && ref.UID == owner.GetUID()
}

// Dependents reads the Ts that objects of kind control. A change of one
// wakes whoever controls it now or did before; an orphan that is new or has
// new labels wakes those that would, who may be nil.
func Dependents[T apis.Object](kind schema.GroupVersionKind, would func(World, T) []Key, by ...*Index) Read {
	return Read{Kind: reflect.TypeFor[T](), By: append(by, ByOwner), Wakes: func(w World, old, obj apis.Object) []Key {
		was, is := controllerKey(old, kind), controllerKey(obj, kind)
		var keys []Key
		if was != nil {
			keys = append(keys, *was)
		}
		switch {
		case is != nil && (was == nil || *is != *was):
			keys = append(keys, *is)
		case obj != nil && would != nil && metav1.GetControllerOfNoCopy(obj) == nil && obj.GetDeletionTimestamp() == nil:
			if old == nil || metav1.GetControllerOfNoCopy(old) != nil || !reflect.DeepEqual(old.GetLabels(), obj.GetLabels()) {
				keys = append(keys, would(w, obj.(T))...)
			}
		}
		return keys
	}}
}

func controllerKey(obj apis.Object, kind schema.GroupVersionKind) *Key {
	if obj == nil {
		return nil
	}
	ref := metav1.GetControllerOfNoCopy(obj)
	if ref == nil || ref.Kind != kind.Kind {
		return nil
	}
	if gv, err := schema.ParseGroupVersion(ref.APIVersion); err != nil || gv.Group != kind.Group {
		return nil
	}
	return &Key{obj.GetNamespace(), ref.Name}
}

// Selecting returns the Ts of obj's namespace whose selector picks obj.
func Selecting[T apis.Object](w World, obj apis.Object, selector func(T) labels.Selector) (keys []Key) {
	for _, t := range In[T](w, obj.GetNamespace()) {
		if s := selector(t); !s.Empty() && s.Matches(labels.Set(obj.GetLabels())) {
			keys = append(keys, KeyOf(t))
		}
	}
	return keys
}

// Selector is s as it selects, or nothing where s is not valid.
func Selector(s *metav1.LabelSelector) labels.Selector {
	if sel, err := metav1.LabelSelectorAsSelector(s); err == nil {
		return sel
	}
	return labels.Nothing()
}

// A Claimant says for what objects its owner is responsible: those that
// Picks selects.
type Claimant struct {
	Owner apis.Object
	Kind  schema.GroupVersionKind // of Owner
	Picks labels.Selector

	Finalizer string // what is adopted gets it and what is released loses it, if any
}

// Claim returns those of all that are the claimant's, and what makes it so:
// orphans that it picks are adopted, those it no longer picks released. An
// owner that is being deleted does neither.
func Claim[T apis.Object](c Claimant, all []T) (mine []T, do []Action) {
	leaving := c.Owner.GetDeletionTimestamp() != nil
	var adopt []Action
	for _, obj := range all {
		ref, picked := metav1.GetControllerOfNoCopy(obj), c.Picks.Matches(labels.Set(obj.GetLabels()))
		switch {
		case ref != nil && ref.UID != c.Owner.GetUID():
		case ref != nil && picked:
			mine = append(mine, obj)
		case leaving:
		case ref != nil:
			do = append(do, c.release(obj))
		case picked && obj.GetDeletionTimestamp() == nil:
			mine, adopt = append(mine, obj), append(adopt, c.adopt(obj))
		}
	}
	if len(adopt) > 0 {
		// What is seen of the owner may be old: it must not take in objects while it is deleted.
		do = append(append(do, Action{Verb: Check, Obj: c.Owner}), adopt...)
	}
	return mine, do
}

func (c Claimant) adopt(obj apis.Object) Action {
	ref := metav1.NewControllerRef(c.Owner, c.Kind)
	fields := metaFields{UID: obj.GetUID(), OwnerReferences: []any{ref}}
	if c.Finalizer != "" {
		fields.Finalizers = []string{c.Finalizer}
	}
	return Action{Verb: Patch, Obj: obj, Pace: AtOnce, Patch: JSON(metaPatch{fields})}
}

func (c Claimant) release(obj apis.Object) Action {
	fields := metaFields{
		UID:             obj.GetUID(),
		OwnerReferences: []any{map[string]string{"$patch": "delete", "uid": string(c.Owner.GetUID())}},
	}
	if c.Finalizer != "" {
		fields.DropFinalizers = []string{c.Finalizer}
	}
	return Action{Verb: Patch, Obj: obj, Pace: AtOnce, Patch: JSON(metaPatch{fields})}
}

// DropFinalizer is the strategic merge patch that takes a finalizer from obj,
// and from no other of its name.
func DropFinalizer(obj apis.Object, finalizer string) Action {
	fields := metaFields{UID: obj.GetUID(), DropFinalizers: []string{finalizer}}
	return Action{Verb: Patch, Obj: obj, Pace: AtOnce, Patch: JSON(metaPatch{fields})}
}

// AddFinalizer is the strategic merge patch that gives obj a finalizer.
func AddFinalizer(obj apis.Object, finalizer string) Action {
	fields := metaFields{UID: obj.GetUID(), Finalizers: []string{finalizer}}
	return Action{Verb: Patch, Obj: obj, Patch: JSON(metaPatch{fields})}
}

type metaPatch struct {
	Metadata metaFields `json:"metadata"`
}

type metaFields struct {
	UID             types.UID `json:"uid"` // a precondition: the server refuses to change it
	OwnerReferences []any     `json:"ownerReferences,omitempty"`
	Finalizers      []string  `json:"finalizers,omitempty"`
	DropFinalizers  []string  `json:"$deleteFromPrimitiveList/finalizers,omitempty"`
}

// JSON is v, which must be a value that JSON can say.
func JSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// Living reports whether something may still be created in ns.
func Living(ns *corev1.Namespace) bool {
	return ns.DeletionTimestamp == nil && ns.Status.Phase == corev1.NamespaceActive
}
