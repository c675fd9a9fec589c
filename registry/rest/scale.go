package rest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/patch"
	"github.com/knarr-dev/knarr/registry/wire"
)

// ScaleKind is the kind of the scale subresource of all kinds.
var ScaleKind = wire.NewKind(autoscalingv1.SchemeGroupVersion.WithKind("Scale"), func() apis.Object { return &autoscalingv1.Scale{} })

// ScaleOf returns the scale of a stored object.
func (k *Kind) ScaleOf(obj apis.Object) *autoscalingv1.Scale {
	s := &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{
			Name: obj.GetName(), Namespace: obj.GetNamespace(), UID: obj.GetUID(),
			ResourceVersion: obj.GetResourceVersion(), CreationTimestamp: obj.GetCreationTimestamp(),
		},
		Status: autoscalingv1.ScaleStatus{Replicas: k.Scale.Has(obj), Selector: k.Scale.Selector(obj)},
	}
	if n := k.Scale.Wanted(obj); n != nil {
		s.Spec.Replicas = *n
	}
	s.SetGroupVersionKind(ScaleKind.GroupVersionKind)
	return s
}

// Rescale replaces the scale of an object by what the client sent.
func (f *Form) Rescale(ctx context.Context, c *Call, in *autoscalingv1.Scale) (Written, error) {
	if in.Name != c.Name {
		return Written{}, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", in.Name, c.Name))
	}
	if in.Namespace != "" && in.Namespace != c.Namespace {
		return Written{}, apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return f.modify(ctx, c, func(old apis.Object) (apis.Object, error) {
		if in.UID != "" && in.UID != old.GetUID() {
			return nil, f.another(c, in.UID, old.GetUID())
		}
		return f.scaled(old, in)
	}, 0)
}

// PatchScale changes the scale of an object by a patch of the scale.
func (f *Form) PatchScale(ctx context.Context, c *Call, p *patch.Patch) (Written, error) {
	if p.Type == types.ApplyPatchType {
		parent, err := f.scaleApply(p, c.Name)
		if err != nil {
			return Written{}, err
		}
		return f.Patch(ctx, c, parent)
	}
	return f.modify(ctx, c, func(old apis.Object) (apis.Object, error) {
		made, warnings, err := p.On(ScaleKind, f.ScaleOf(old), nil)
		if err != nil {
			return nil, err
		}
		registry.Warn(ctx, warnings...)
		return f.scaled(old, made.(*autoscalingv1.Scale))
	}, patchTries)
}

// scaled is old with the replicas of a scale.
func (f *Form) scaled(old apis.Object, s *autoscalingv1.Scale) (apis.Object, error) {
	if s.Spec.Replicas < 0 {
		return nil, apierrors.NewInvalid(ScaleKind.GroupKind(), s.Name, field.ErrorList{
			field.Invalid(field.NewPath("spec", "replicas"), s.Spec.Replicas, "must be greater than or equal to 0"),
		})
	}
	obj := old.DeepCopyObject().(apis.Object)
	f.Scale.Want(obj, s.Spec.Replicas)
	if s.ResourceVersion != "" || !f.Lifetime.NeedsVersion {
		obj.SetResourceVersion(s.ResourceVersion)
	}
	obj.SetUID(s.UID)
	return obj, nil
}

// scaleApply makes an apply patch of a scale one of the object itself, so
// that ownership of its replicas is accounted for there.
func (f *Form) scaleApply(p *patch.Patch, name string) (*patch.Patch, error) {
	var s struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        struct {
			Name            string `json:"name"`
			ResourceVersion string `json:"resourceVersion,omitempty"`
		} `json:"metadata"`
		Spec struct {
			Replicas *int32 `json:"replicas,omitempty"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(p.Body, &s); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding YAML: %v", err))
	}
	if s.GroupVersionKind() != ScaleKind.GroupVersionKind {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%s is not a %s", s.GroupVersionKind(), ScaleKind.GroupVersionKind))
	}
	parentKind := f.Wire.GroupVersionKind
	whole := map[string]any{
		"apiVersion": parentKind.GroupVersion().String(), "kind": parentKind.Kind,
		"metadata": map[string]any{"name": name},
	}
	if v := s.Metadata.ResourceVersion; v != "" {
		whole["metadata"].(map[string]any)["resourceVersion"] = v
	}
	if s.Spec.Replicas != nil {
		if err := unstructured.SetNestedField(whole, int64(*s.Spec.Replicas), strings.Split(f.Scale.Path, ".")...); err != nil {
			return nil, err
		}
	}
	body, err := json.Marshal(whole)
	if err != nil {
		return nil, err
	}
	parent := *p
	parent.Body = body
	return &parent, nil
}
