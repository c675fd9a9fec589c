package patch

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// Merge returns live with what change sets, merged as apply does, but in
// nobody's name. What is replaced as a whole may not be changed.
func (o *Owners) Merge(live, change *unstructured.Unstructured) (runtime.Object, error) {
	to := o.converter()
	now, err := to.ObjectToTyped(change)
	if err != nil {
		return nil, fmt.Errorf("failed to convert patch object to typed object: %w", err)
	}
	if whole := atomics(nil, now.Schema(), now.TypeRef(), now.AsValue()); len(whole) > 0 {
		return nil, fmt.Errorf("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: %s", strings.Join(whole, ", "))
	}
	was, err := to.ObjectToTyped(live, typed.AllowDuplicates)
	if err != nil {
		return nil, fmt.Errorf("failed to convert original object to typed object: %w", err)
	}
	made, err := was.Merge(now)
	if err != nil {
		return nil, fmt.Errorf("failed to merge patch: %w", err)
	}
	obj, err := to.TypedToObject(made)
	if err != nil {
		return nil, fmt.Errorf("failed to convert typed object to object: %w", err)
	}
	return obj, nil
}

// atomics are the places of v that are replaced as a whole.
func atomics(at fieldpath.Path, s *schema.Schema, t schema.TypeRef, v value.Value) (places []string) {
	a, ok := s.Resolve(t)
	switch {
	case !ok:
	case v.IsMap() && a.Map != nil:
		if a.Map.ElementRelationship == schema.Atomic {
			places = append(places, at.String())
		}
		v.AsMap().Iterate(func(name string, val value.Value) bool {
			of := a.Map.ElementType
			if f, ok := a.Map.FindField(name); ok {
				of = f.Type
			}
			places = append(places, atomics(append(slices.Clip(at), fieldpath.PathElement{FieldName: &name}), s, of, val)...)
			return true
		})
	case v.IsList() && a.List != nil:
		if a.List.ElementRelationship == schema.Atomic {
			places = append(places, at.String())
		}
		list := v.AsList()
		for i := range list.Length() {
			places = append(places, atomics(append(slices.Clip(at), fieldpath.PathElement{Index: &i}), s, a.List.ElementType, list.At(i))...)
		}
	}
	return places
}
