package crd

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/common"

	"github.com/knarr-dev/knarr/apis"
)

// A checker holds objects of one version to its schema. What it needs is made
// when the first object comes: most versions of most kinds see none.
type checker struct {
	*version

	whole  func() (validation.SchemaValidator, error)
	status func() (validation.SchemaValidator, error) // nil where status may be anything
	rules  func() *cel.Validator                      // nil without rules
}

func newChecker(v *version) *checker {
	c := &checker{version: v}
	c.whole = sync.OnceValues(func() (validation.SchemaValidator, error) { return schemaValidator(v.props) })
	c.status = func() (validation.SchemaValidator, error) { return nil, nil }
	if v.props != nil {
		if status, ok := v.props.Properties["status"]; ok {
			c.status = sync.OnceValues(func() (validation.SchemaValidator, error) { return schemaValidator(&status) })
		}
	}
	c.rules = sync.OnceValue(func() *cel.Validator { return cel.NewValidator(v.schema, true, celconfig.PerCallLimit) })
	return c
}

func schemaValidator(props *apiextensions.JSONSchemaProps) (validation.SchemaValidator, error) {
	v, _, err := validation.NewSchemaValidator(props)
	return v, err
}

// unchecked is what is wrong with an object that cannot be held to its schema.
func unchecked(err error) field.ErrorList { return field.ErrorList{field.InternalError(nil, err)} }

// validate is the Validate hook of the kind.
func (c *checker) validate(obj, old apis.Object) field.ErrorList {
	u := obj.(*unstructured.Unstructured)
	if errs := c.typed(u); len(errs) > 0 {
		return errs
	}
	whole, err := c.whole()
	if err != nil {
		return unchecked(err)
	}
	was, changed := old.(*unstructured.Unstructured)
	var errs field.ErrorList
	var ratchet ratchet
	if changed {
		ratchet = c.ratchet(u, was)
		errs = validation.ValidateCustomResourceUpdate(nil, u.Object, was.Object, whole, validation.WithRatcheting(ratchet.whole))
	} else {
		errs = validation.ValidateCustomResource(nil, u.Object, whole)
	}
	errs = append(errs, c.scaleWanted(u)...)
	errs = append(errs, c.scaleHas(u)...)
	errs = append(errs, objectmeta.Validate(nil, u.Object, c.schema, false)...)
	if lists := listtype.ValidateListSetsAndMaps(nil, c.schema, u.Object); len(lists) > 0 {
		if !changed || len(listtype.ValidateListSetsAndMaps(nil, c.schema, was.Object)) == 0 {
			errs = append(errs, lists...)
		}
	}
	return append(errs, c.ruled(u, was, errs, ratchet.options...)...)
}

// validateStatus is the Validate hook of the status subresource.
func (c *checker) validateStatus(obj, old apis.Object) field.ErrorList {
	u, was := obj.(*unstructured.Unstructured), old.(*unstructured.Unstructured)
	if errs := c.typed(u); len(errs) > 0 {
		return errs
	}
	ratchet := c.ratchet(u, was)
	var errs field.ErrorList
	if status, has := u.Object["status"]; has {
		schema, err := c.status()
		if err != nil {
			return unchecked(err)
		}
		var opts []validation.ValidationOption
		if c.schema != nil {
			opts = append(opts, validation.WithRatcheting(ratchet.whole.Key("status")))
		}
		errs = validation.ValidateCustomResourceUpdate(field.NewPath("status"), status, was.Object["status"], schema, opts...)
	}
	errs = append(errs, c.scaleHas(u)...)
	if lists := listtype.ValidateListSetsAndMaps(nil, c.schema, u.Object); len(lists) > 0 && len(listtype.ValidateListSetsAndMaps(nil, c.schema, was.Object)) == 0 {
		errs = append(errs, lists...)
	}
	return append(errs, c.ruled(u, was, errs, ratchet.options...)...)
}

// A ratchet lets pass what was wrong before and has not been touched.
type ratchet struct {
	whole   *common.CorrelatedObject
	options []cel.Option
}

func (c *checker) ratchet(u, was *unstructured.Unstructured) ratchet {
	pair := common.NewCorrelatedObject(u.Object, was.Object, &model.Structural{Structural: c.schema})
	return ratchet{pair, []cel.Option{cel.WithRatcheting(pair)}}
}

// typed holds an object to its kind and version, which a patch may have changed.
func (c *checker) typed(u *unstructured.Unstructured) (errs field.ErrorList) {
	if u.GetKind() != c.gvk.Kind {
		errs = append(errs, field.Invalid(field.NewPath("kind"), u.GetKind(), "must be "+c.gvk.Kind))
	}
	if v := c.gvk.GroupVersion().String(); u.GetAPIVersion() != v {
		errs = append(errs, field.Invalid(field.NewPath("apiVersion"), u.GetAPIVersion(), "must be "+v))
	}
	return errs
}

// ruled holds an object to the rules in its schema, unless what is known to
// be wrong already would make them fail.
func (c *checker) ruled(u, was *unstructured.Unstructured, errs field.ErrorList, opts ...cel.Option) field.ErrorList {
	rules := c.rules()
	if rules == nil {
		return nil
	}
	for _, e := range errs {
		switch e.Type {
		case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
			return field.ErrorList{field.Invalid(nil, nil, "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation")}
		}
	}
	var before any
	if was != nil {
		before = was.Object
	}
	// What it may cost is bounded, so that it needs no end from outside.
	errs, _ = rules.Validate(context.Background(), nil, c.schema, u.Object, before, celconfig.RuntimeCELCostBudget, opts...)
	return errs
}

func (c *checker) scaleWanted(u *unstructured.Unstructured) field.ErrorList {
	if !c.hasScale() {
		return nil
	}
	return replicas(u, c.Subresources.Scale.SpecReplicasPath)
}

func (c *checker) scaleHas(u *unstructured.Unstructured) field.ErrorList {
	if !c.hasScale() {
		return nil
	}
	errs := replicas(u, c.Subresources.Scale.StatusReplicasPath)
	if path := c.Subresources.Scale.LabelSelectorPath; path != nil && *path != "" {
		if text, _, err := unstructured.NestedString(u.Object, steps(*path)...); err != nil {
			errs = append(errs, field.Invalid(field.NewPath(*path), text, err.Error()))
		}
	}
	return errs
}

// replicas holds what is at a path to be a number of replicas.
func replicas(u *unstructured.Unstructured, path string) field.ErrorList {
	n, _, err := unstructured.NestedInt64(u.Object, steps(path)...)
	switch {
	case err != nil:
		return field.ErrorList{field.Invalid(field.NewPath(path), n, err.Error())}
	case n < 0:
		return field.ErrorList{field.Invalid(field.NewPath(path), n, "should be a non-negative integer")}
	case n > math.MaxInt32:
		return field.ErrorList{field.Invalid(field.NewPath(path), n, fmt.Sprintf("should be less than or equal to %v", math.MaxInt32))}
	}
	return nil
}

// steps are the names on a simple JSON path.
func steps(path string) []string { return strings.Split(strings.TrimPrefix(path, "."), ".") }

// warn is the Warn hook of the kind: of finalizers that were added and that
// nobody can tell the owner of.
func warn(obj, old apis.Object) (texts []string) {
	at := field.NewPath("metadata", "finalizers").String()
	added := slices.Clone(obj.GetFinalizers())
	if was, ok := old.(*unstructured.Unstructured); ok {
		added = slices.DeleteFunc(added, func(f string) bool { return slices.Contains(was.GetFinalizers(), f) })
	}
	slices.Sort(added)
	for _, name := range slices.Compact(added) {
		for _, fault := range utilvalidation.IsQualifiedName(name) {
			texts = append(texts, fmt.Sprintf("%s: %q: %s", at, name, fault))
		}
		switch name {
		case metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents, string(corev1.FinalizerKubernetes):
			continue
		}
		switch {
		case strings.Contains(name, "/"):
		case strings.Contains(name, "."):
			texts = append(texts, fmt.Sprintf("%s: %q: prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers", at, name))
		default:
			texts = append(texts, fmt.Sprintf("%s: %q: prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers", at, name))
		}
	}
	return texts
}
