// Package crd makes kinds of CustomResourceDefinitions: it follows the
// definitions in the cache, has each of their versions served as a kind like
// any other, and keeps their status. What an object must be like is read off
// the definition's schema.
package crd

import (
	"fmt"
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
)

// A family is what one definition defines: a kind in each of its versions.
type family struct {
	*apiextensionsv1.CustomResourceDefinition

	kind     schema.GroupKind
	storage  string // the version that objects are stored in
	versions map[string]*version
	convert  converter
	known    bool // it is said to be served
}

// A version is one version of a custom kind.
type version struct {
	*apiextensionsv1.CustomResourceDefinitionVersion

	gvk    schema.GroupVersionKind
	props  *apiextensions.JSONSchemaProps // nil without a schema
	schema *structuralschema.Structural   // the same, as it is worked with
}

// newFamily reads a definition whose names have been accepted.
func newFamily(c *apiextensionsv1.CustomResourceDefinition, hooks Caller) (*family, error) {
	names := c.Status.AcceptedNames
	if names.Plural == "" || names.Kind == "" {
		return nil, fmt.Errorf("%s has no accepted names", c.Name)
	}
	f := &family{
		CustomResourceDefinition: c, kind: schema.GroupKind{Group: c.Spec.Group, Kind: names.Kind}, versions: map[string]*version{},
	}
	for i := range c.Spec.Versions {
		v, err := f.version(&c.Spec.Versions[i])
		if err != nil {
			return nil, fmt.Errorf("%s in version %s: %w", c.Name, c.Spec.Versions[i].Name, err)
		}
		f.versions[v.Name] = v
		if v.Storage {
			f.storage = v.Name
		}
	}
	if f.storage == "" {
		return nil, fmt.Errorf("%s has no version to store", c.Name)
	}
	f.convert = f.converter(hooks)
	return f, nil
}

func (f *family) version(v *apiextensionsv1.CustomResourceDefinitionVersion) (*version, error) {
	out := &version{CustomResourceDefinitionVersion: v, gvk: f.kind.WithVersion(v.Name)}
	for _, path := range out.paths() {
		if _, err := finder(path); err != nil {
			return nil, err
		}
	}
	if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
		return out, nil
	}
	out.props = &apiextensions.JSONSchemaProps{}
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v.Schema.OpenAPIV3Schema.DeepCopy(), out.props, nil); err != nil {
		return nil, err
	}
	s, err := structuralschema.NewStructural(out.props)
	if err != nil {
		if f.Spec.PreserveUnknownFields {
			return out, nil // one from before schemas had to be structural
		}
		return nil, err
	}
	out.schema = s.DeepCopy() // it shares its defaults with the definition
	if f.Spec.PreserveUnknownFields {
		return out, nil
	}
	return out, defaulting.PruneDefaults(out.schema)
}

// subresource reports whether the version has a status or a scale.
func (v *version) hasStatus() bool { return v.Subresources != nil && v.Subresources.Status != nil }
func (v *version) hasScale() bool  { return v.Subresources != nil && v.Subresources.Scale != nil }

// New is part of patch.Forms.
func (f *family) New(gv schema.GroupVersion) (apis.Object, error) {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(gv.WithKind(f.kind.Kind))
	return u, nil
}

// Convert is part of patch.Forms. Obj stays as it is.
func (f *family) Convert(obj apis.Object, gv schema.GroupVersion) (apis.Object, error) {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("%T is no %s", obj, f.kind)
	}
	if u.GetAPIVersion() == gv.String() {
		return u, nil
	}
	return f.as(u.DeepCopy(), gv.Version)
}

// Default is part of patch.Forms.
func (f *family) Default(obj apis.Object) {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		if v := f.versions[u.GroupVersionKind().Version]; v != nil {
			defaulting.Default(u.Object, v.schema)
		}
	}
}

// as is u, which it may change, in another version.
func (f *family) as(u *unstructured.Unstructured, version string) (*unstructured.Unstructured, error) {
	if u.GroupVersionKind().Version == version {
		return u, nil
	}
	if len(u.Object) == 2 { // its kind and version: there is nothing to convert
		u.SetAPIVersion(schema.GroupVersion{Group: f.kind.Group, Version: version}.String())
		return u, nil
	}
	made, err := f.convert([]*unstructured.Unstructured{u}, version)
	if err != nil {
		return nil, err
	}
	_, err = f.coerce(made[0], coercion{})
	return made[0], err
}

// served are the versions that are served, the one that is stored first.
func (f *family) served() (all []*version) {
	for _, v := range f.Spec.Versions {
		if v.Served {
			all = append(all, f.versions[v.Name])
		}
	}
	slices.SortStableFunc(all, func(a, b *version) int {
		switch {
		case a.Name == f.storage:
			return -1
		case b.Name == f.storage:
			return 1
		}
		return 0
	})
	return all
}
