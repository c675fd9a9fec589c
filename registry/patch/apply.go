package patch

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/knarr-dev/knarr/apis"
)

// apply merges change into live in the name of manager.
func (f *Fields) apply(live apis.Object, change *unstructured.Unstructured, manager string, force bool) (apis.Object, error) {
	m, err := f.make()
	if err != nil {
		return nil, err
	}
	entries := live.GetManagedFields()
	last := f.last(entries, manager)
	if f.owners.custom || len(entries) == 0 || last >= 0 && !f.repeats(entries[last], change) {
		return merge(m, f.named(live), change, manager, force)
	}
	// Only what change speaks of can become another.
	some := f.named(pick(live, change.Object))
	if last >= 0 {
		without := slices.Clone(entries)
		without[last].FieldsV1 = nothing
		some.SetManagedFields(without)
	}
	made, err := merge(m, some, change, manager, force)
	if err != nil {
		return nil, err
	}
	return putBack(live, made, change.Object), nil
}

// named is obj with the version and kind that it is of.
func (f *Fields) named(obj apis.Object) apis.Object {
	obj.GetObjectKind().SetGroupVersionKind(f.gvk)
	return obj
}

func merge(m *managedfields.FieldManager, live apis.Object, change *unstructured.Unstructured, manager string, force bool) (apis.Object, error) {
	obj, err := m.Apply(live, change, manager, force)
	if err != nil {
		return nil, err
	}
	typed, ok := obj.(apis.Object)
	if !ok {
		return nil, fmt.Errorf("apply made a %T", obj)
	}
	return typed, nil
}

// pick is a new object that has the fields of obj that are named in change,
// and its metadata. It shares with obj what is in them.
func pick(obj apis.Object, change map[string]any) apis.Object {
	from := reflect.ValueOf(obj).Elem()
	to := reflect.New(from.Type())
	assign(to.Elem(), from, change)
	return to.Interface().(apis.Object)
}

// putBack is obj with those fields of made that pick has picked for change.
func putBack(obj, made apis.Object, change map[string]any) apis.Object {
	from := reflect.ValueOf(obj).Elem()
	to := reflect.New(from.Type())
	to.Elem().Set(from)
	assign(to.Elem(), reflect.ValueOf(made).Elem(), change)
	return to.Interface().(apis.Object)
}

func assign(to, from reflect.Value, change map[string]any) {
	for i := range from.NumField() {
		name, _, _ := strings.Cut(from.Type().Field(i).Tag.Get("json"), ",")
		if _, named := change[name]; named || name == "" || name == "metadata" {
			to.Field(i).Set(from.Field(i))
		}
	}
}

// nothing is no fields.
var nothing = metav1.NewFieldsV1("{}")

// last finds the entry of what manager has applied here last, -1 for none.
func (f *Fields) last(entries []metav1.ManagedFieldsEntry, manager string) int {
	return slices.IndexFunc(entries, func(e metav1.ManagedFieldsEntry) bool {
		return e.Manager == manager && e.Operation == metav1.ManagedFieldsOperationApply && e.Subresource == f.sub
	})
}

// repeats reports whether change has all of what was applied last: then
// nothing is to be taken away that is not applied any more, and the work of
// looking for it is saved where the entry is empty.
func (f *Fields) repeats(e metav1.ManagedFieldsEntry, change *unstructured.Unstructured) bool {
	if e.APIVersion != f.gvk.GroupVersion().String() || e.FieldsV1 == nil {
		return false
	}
	last := &fieldpath.Set{}
	if last.FromJSON(e.FieldsV1.GetRawReader()) != nil {
		return false
	}
	now, err := f.owners.converter().ObjectToTyped(change)
	if err != nil {
		return false // the field manager says what is wrong
	}
	set, err := now.ToFieldSet()
	if err != nil {
		return false
	}
	if f.resets != nil {
		set = f.resets.Filter(set)
	}
	return last.Difference(set).Empty()
}
