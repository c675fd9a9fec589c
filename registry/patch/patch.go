// Package patch makes one object from another and a patch, of the four kinds
// that clients send, and keeps account of who owns which field. It stores
// nothing.
package patch

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/mergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry/wire"
)

// maxOperations is how many operations a JSON patch may have, as upstream.
const maxOperations = 10_000

// A Patch is the body of a PATCH request and how it is to be read.
type Patch struct {
	Type   types.PatchType
	Body   []byte
	Strict wire.Strictness

	// For apply only: in whose name, and whether to take fields from others.
	Manager string
	Force   bool
}

// On returns what the patch makes of old, which stays as it is. Where apply
// is to create an object, old is a new one.
func (p *Patch) On(k *wire.Kind, old apis.Object, owners *Fields) (obj apis.Object, warnings []string, err error) {
	switch p.Type {
	case types.ApplyPatchType:
		return p.apply(old, owners)
	case types.StrategicMergePatchType:
		return p.strategic(k, old)
	}
	return p.json(k, old)
}

func (p *Patch) json(k *wire.Kind, old apis.Object) (apis.Object, []string, error) {
	faults, err := p.faults()
	if err != nil {
		return nil, nil, err
	}
	old.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
	doc, err := json.Marshal(old)
	if err != nil {
		return nil, nil, fmt.Errorf("encode for patch: %w", err)
	}
	patched, err := p.edit(doc)
	if err != nil {
		return nil, nil, err
	}
	if err := k.Holds(patched); err != nil {
		return nil, nil, invalid(string(patched), err)
	}
	obj := k.New()
	more, err := k.Parse(patched, obj, p.Strict)
	if err != nil {
		return nil, nil, invalid(string(patched), err)
	}
	warnings, err := p.verdict(append(faults, more...), string(patched))
	return obj, warnings, err
}

// faults finds fields of the patch itself that are unknown or given twice.
func (p *Patch) faults() (faults []error, err error) {
	if p.Strict == wire.Ignore {
		return nil, nil
	}
	if p.Type == types.MergePatchType {
		if faults, err = kjson.UnmarshalStrict(p.Body, &map[string]any{}); err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
		}
		return faults, nil
	}
	var ops []operation
	if faults, err = kjson.UnmarshalStrict(p.Body, &ops); err != nil {
		// The text names the type, which clients know by upstream's name.
		text := strings.Replace(err.Error(), "patch.operation", "handlers.jsonPatchOp", 1)
		return nil, apierrors.NewBadRequest("error decoding patch: " + text)
	}
	for i, fault := range faults {
		faults[i] = fmt.Errorf("json patch %w", fault)
	}
	return faults, nil
}

// operation is one of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	From  string `json:"from"`
	Value any    `json:"value"`
}

// edit applies a JSON or merge patch to a JSON document.
func (p *Patch) edit(doc []byte) ([]byte, error) {
	if p.Type == types.MergePatchType {
		patched, err := jsonpatch.MergePatch(doc, p.Body)
		if errors.Is(err, jsonpatch.ErrBadJSONPatch) {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		return patched, err
	}
	ops, err := jsonpatch.DecodePatch(p.Body)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if len(ops) > maxOperations {
		return nil, apierrors.NewRequestEntityTooLargeError(
			fmt.Sprintf("The allowed maximum operations in a JSON patch is %d, got %d", maxOperations, len(ops)))
	}
	patched, err := ops.Apply(doc)
	if err != nil {
		return nil, unprocessable(err)
	}
	return patched, nil
}

func (p *Patch) strategic(k *wire.Kind, old apis.Object) (apis.Object, []string, error) {
	original, err := runtime.DefaultUnstructuredConverter.ToUnstructured(old)
	if err != nil {
		return nil, nil, fmt.Errorf("encode for patch: %w", err)
	}
	var change map[string]any
	faults, err := kjson.UnmarshalStrict(p.Body, &change)
	if err != nil {
		return nil, nil, apierrors.NewBadRequest(err.Error())
	}
	if p.Strict == wire.Ignore {
		faults = nil
	}
	text := fmt.Sprintf("%+v", change) // now: merging eats the patch
	merged, err := strategicpatch.StrategicMergeMapPatch(original, change, k.New())
	if err != nil {
		return nil, nil, unmergeable(err)
	}
	obj := k.New()
	err = runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(merged, obj, p.Strict != wire.Ignore)
	if strict, ok := runtime.AsStrictDecodingError(err); ok {
		faults = append(faults, strict.Errors()...)
	} else if err != nil {
		return nil, nil, invalid(text, err)
	}
	warnings, err := p.verdict(faults, text)
	return obj, warnings, err
}

func (p *Patch) apply(old apis.Object, owners *Fields) (apis.Object, []string, error) {
	change := map[string]any{}
	if bytes.HasPrefix(p.Body, []byte("{")) {
		// Most clients send JSON, which is read faster as such.
		if faults, err := kjson.UnmarshalStrict(p.Body, &change); err == nil && len(faults) == 0 {
			obj, err := owners.apply(old, &unstructured.Unstructured{Object: change}, p.Manager, p.Force)
			return obj, nil, err
		}
		change = map[string]any{}
	}
	if err := utilyaml.Unmarshal(p.Body, &change); err != nil { // which keeps integers
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding YAML: %v", err))
	}
	obj, err := owners.apply(old, &unstructured.Unstructured{Object: change}, p.Manager, p.Force)
	if err != nil || p.Strict == wire.Ignore {
		return obj, nil, err
	}
	if err := yaml.UnmarshalStrict(p.Body, &map[string]any{}); err != nil {
		if p.Strict == wire.Refuse {
			return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error strict decoding YAML: %v", err))
		}
		return obj, []string{err.Error()}, nil
	}
	return obj, nil, nil
}

// verdict makes faults warnings, or an error, as the client wants it.
func (p *Patch) verdict(faults []error, value string) (warnings []string, err error) {
	if len(faults) == 0 || p.Strict == wire.Ignore {
		return nil, nil
	}
	if p.Strict == wire.Refuse {
		return nil, invalid(value, runtime.NewStrictDecodingError(faults))
	}
	for _, f := range faults {
		warnings = append(warnings, f.Error())
	}
	return warnings, nil
}

// invalid is the error of a patch whose result is not an object.
func invalid(value string, err error) error {
	return apierrors.NewInvalid(schema.GroupKind{}, "", field.ErrorList{field.Invalid(field.NewPath("patch"), value, err.Error())})
}

func unprocessable(err error) error {
	return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
}

func unmergeable(err error) error {
	for _, bad := range []error{
		mergepatch.ErrBadJSONDoc, mergepatch.ErrBadPatchFormatForPrimitiveList, mergepatch.ErrBadPatchFormatForRetainKeys,
		mergepatch.ErrBadPatchFormatForSetElementOrderList, mergepatch.ErrUnsupportedStrategicMergePatchFormat,
	} {
		if errors.Is(err, bad) {
			return apierrors.NewBadRequest(err.Error())
		}
	}
	if errors.Is(err, mergepatch.ErrNoListOfLists) || errors.Is(err, mergepatch.ErrPatchContentNotMatchRetainKeys) {
		return unprocessable(err)
	}
	return err
}
