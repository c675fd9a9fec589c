package policy

import (
	"context"
	"errors"
	"fmt"
	"maps"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry/admit"
	"github.com/knarr-dev/knarr/registry/rest"
)

func (p *policy) paramGVK() schema.GroupVersionKind {
	return schema.FromAPIVersionAndKind(p.params.APIVersion, p.params.Kind)
}

// paramForm is the form that parameters of a kind are served in, nil if they
// are not.
func (cfg *Config) paramForm(k *admissionregistrationv1.ParamKind) *rest.Form {
	gvk := schema.FromAPIVersionAndKind(k.APIVersion, k.Kind)
	for _, kind := range cfg.Service.Kinds() {
		for _, f := range kind.Forms() {
			if f.Wire.GroupVersionKind == gvk && kind.Objects != nil {
				return f
			}
		}
	}
	return nil
}

// paramsOf are the parameters that a binding names; one that is nil where the
// policy is tried without.
func (j *judge) paramsOf(ctx context.Context, p *policy, b *binding, r *admit.Request) ([]map[string]any, error) {
	if p.params == nil || b.ref == nil {
		return []map[string]any{nil}, nil
	}
	form := j.paramForm(p.params)
	if form == nil {
		return nil, fmt.Errorf("paramKind kind `%v` not known", p.params.String())
	}
	namespace := b.ref.Namespace
	switch {
	case form.Scope == apis.Cluster && namespace != "":
		return nil, errors.New("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
	case form.Scope == apis.Namespaced && namespace == "":
		if namespace = r.Namespace; namespace == "" {
			return nil, errors.New("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")
		}
	}
	objs, err := j.named(ctx, form, b.ref, namespace)
	if err != nil {
		return nil, err
	}
	if action := b.ref.ParameterNotFoundAction; len(objs) == 0 && action != nil && *action == admissionregistrationv1.DenyAction {
		return nil, errors.New("no params found for policy binding with `Deny` parameterNotFoundAction")
	}
	params := make([]map[string]any, len(objs))
	for i, obj := range objs {
		if params[i], err = shown(form, obj); err != nil {
			return nil, err
		}
	}
	return params, nil
}

// named are the objects that a reference means, in the stored form.
func (j *judge) named(ctx context.Context, form *rest.Form, ref *admissionregistrationv1.ParamRef, namespace string) ([]apis.Object, error) {
	gr := form.GroupResource()
	if ref.Name != "" {
		obj, err := j.World.Lookup(ctx, gr, namespace, ref.Name)
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return []apis.Object{obj}, err
	}
	selector, err := metav1.LabelSelectorAsSelector(ref.Selector)
	if err != nil {
		return nil, err
	}
	all, err := j.World.All(ctx, gr, namespace)
	var some []apis.Object
	for _, obj := range all {
		if selector.Matches(labels.Set(obj.GetLabels())) {
			some = append(some, obj)
		}
	}
	return some, err
}

// shown is an object as expressions see it in a form.
func shown(form *rest.Form, obj apis.Object) (map[string]any, error) {
	obj, err := form.In(obj)
	if err != nil {
		return nil, err
	}
	var content map[string]any
	if u, ok := obj.(*unstructured.Unstructured); ok {
		content = maps.Clone(u.Object)
	} else if content, err = runtime.DefaultUnstructuredConverter.ToUnstructured(obj); err != nil {
		return nil, err
	}
	content["apiVersion"], content["kind"] = form.Wire.GroupVersionKind.ToAPIVersionAndKind()
	return content, nil
}
