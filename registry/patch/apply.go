package patch

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/knarr-dev/knarr/apis"
)

// apply merges change into live in the name of manager.
func (f *Fields) apply(live apis.Object, change *unstructured.Unstructured, manager string, force bool) (apis.Object, error) {
	m, err := f.make()
	if err != nil {
		return nil, err
	}
	live.GetObjectKind().SetGroupVersionKind(f.gvk)
	entries := live.GetManagedFields()
	if last := f.repeated(entries, change, manager); last >= 0 {
		without := slices.Clone(entries)
		without[last].FieldsV1 = nothing
		live.SetManagedFields(without)
	}
	obj, err := m.Apply(live, change, manager, force)
	live.SetManagedFields(entries)
	if err != nil {
		return nil, err
	}
	typed, ok := obj.(apis.Object)
	if !ok {
		return nil, fmt.Errorf("apply made a %T", obj)
	}
	return typed, nil
}

// nothing is no fields.
var nothing = metav1.NewFieldsV1("{}")

// repeated finds the entry of what manager has applied last, if change has
// all of that too: then nothing is to be taken away that is not applied any
// more, and the work of looking for it is saved where the entry is empty. It
// is -1 where there is no such entry.
func (f *Fields) repeated(entries []metav1.ManagedFieldsEntry, change *unstructured.Unstructured, manager string) int {
	i := slices.IndexFunc(entries, func(e metav1.ManagedFieldsEntry) bool { return f.applied(e, manager) })
	if i < 0 || entries[i].APIVersion != f.gvk.GroupVersion().String() || entries[i].FieldsV1 == nil {
		return -1
	}
	last := &fieldpath.Set{}
	if last.FromJSON(entries[i].FieldsV1.GetRawReader()) != nil {
		return -1
	}
	now, err := f.owners.converter().ObjectToTyped(change)
	if err != nil {
		return -1 // the field manager says what is wrong
	}
	set, err := now.ToFieldSet()
	if err != nil {
		return -1
	}
	if f.resets != nil {
		set = f.resets.Filter(set)
	}
	if !last.Difference(set).Empty() {
		return -1
	}
	return i
}

// applied reports whether an entry is of what manager has applied here.
func (f *Fields) applied(e metav1.ManagedFieldsEntry, manager string) bool {
	return e.Manager == manager && e.Operation == metav1.ManagedFieldsOperationApply && e.Subresource == f.sub
}
