package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"google.golang.org/protobuf/types/known/structpb"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	celmutation "k8s.io/apiserver/pkg/cel/mutation"
	"k8s.io/apiserver/pkg/cel/mutation/dynamic"

	"github.com/knarr-dev/knarr/registry/admit"
	"github.com/knarr-dev/knarr/registry/match"
)

// applied is an object, as JSON, with what an expression wants applied to it.
func (m *mutating) applied(seen *match.Seen, r *admit.Request, content map[string]any, val ref.Val) ([]byte, error) {
	obj, ok := val.(*dynamic.ObjectVal)
	if !ok {
		return nil, fmt.Errorf("unsupported return type from ApplyConfiguration expression: %v", val.Type())
	}
	if err := obj.CheckTypeNamesMatchFieldPathNames(); err != nil {
		return nil, fmt.Errorf("type mismatch: %w", err)
	}
	fields, ok := obj.Value().(map[string]any)
	if !ok {
		return nil, fmt.Errorf("invalid return type: %T", obj.Value())
	}
	change := &unstructured.Unstructured{Object: fields}
	change.SetGroupVersionKind(seen.Kind)
	owners := m.Service.Owners
	if k := m.Service.Kind(r.Kind.GroupResource()); k != nil && seen.Kind.Group == r.Kind.Group && seen.Kind.Kind == r.Kind.Kind {
		owners = k.FieldOwners()
	}
	made, err := owners.Merge(&unstructured.Unstructured{Object: content}, change)
	if err != nil {
		return nil, fmt.Errorf("error applying patch: %w", err)
	}
	return json.Marshal(made)
}

// patched is an object, as JSON, after the JSON patch that an expression has
// made, nil where the patch is not to be done.
func patched(content map[string]any, val ref.Val) ([]byte, error) {
	list, ok := val.(traits.Lister)
	if !ok {
		return nil, errors.New("type mismatch: JSONPatchType.expression should evaluate to array")
	}
	patch := jsonpatch.Patch{}
	for it := list.Iterator(); it.HasNext() == types.True; {
		op, err := operation(it.Next())
		if err != nil {
			return nil, err
		}
		patch = append(patch, op)
	}
	text, err := json.Marshal(content)
	if err != nil {
		return nil, fmt.Errorf("failed to create JSON patch: %w", err)
	}
	text, err = patch.Apply(text)
	switch {
	case errors.Is(err, jsonpatch.ErrTestFailed):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("JSON Patch: %w", err)
	}
	return text, nil
}

// operation is one of a JSON patch.
func operation(val ref.Val) (jsonpatch.Operation, error) {
	native, err := val.ConvertToNative(reflect.TypeFor[*celmutation.JSONPatchVal]())
	if err != nil {
		return nil, fmt.Errorf("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch: %w", err)
	}
	given, ok := native.(*celmutation.JSONPatchVal)
	if !ok {
		return nil, fmt.Errorf("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch, got element of %T", native)
	}
	op := jsonpatch.Operation{}
	set := func(name string, v any) error {
		text, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("JSONPath valueExpression evaluated to a type that could not marshal to JSON: %w", err)
		}
		op[name] = (*json.RawMessage)(&text)
		return nil
	}
	err = errors.Join(set("op", given.Op), set("path", given.Path))
	if given.From != "" {
		err = errors.Join(err, set("from", given.From))
	}
	if err != nil || given.Val == nil {
		return op, err
	}
	if obj, ok := given.Val.(*dynamic.ObjectVal); ok {
		if err := obj.CheckTypeNamesMatchFieldPathNames(); err != nil {
			return nil, fmt.Errorf("type mismatch: %w", err)
		}
	}
	v, err := plain(given.Val)
	if err != nil {
		return nil, fmt.Errorf("JSONPath valueExpression evaluated to a type that could not marshal to JSON: %w", err)
	}
	return op, set("value", v)
}

// plain is a value as something that JSON can be made of.
func plain(val ref.Val) (any, error) {
	switch v := val.(type) {
	case *dynamic.ObjectVal:
		if fields, ok := v.Value().(map[string]any); ok {
			return fields, nil
		}
		return nil, fmt.Errorf("a field of %s is of no type that JSON has", v.Type().TypeName())
	case traits.Lister:
		all := []any{}
		for it := v.Iterator(); it.HasNext() == types.True; {
			one, err := plain(it.Next())
			if err != nil {
				return nil, err
			}
			all = append(all, one)
		}
		return all, nil
	}
	return val.ConvertToNative(reflect.TypeFor[*structpb.Value]())
}
