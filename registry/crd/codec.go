package crd

import (
	"encoding/json"
	"fmt"
	"slices"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kjson "sigs.k8s.io/json"

	"github.com/knarr-dev/knarr/apis"
)

// A codec reads and writes the objects of one version. It is a wire.Codec.
type codec struct {
	*family

	version string
}

// Parse is part of wire.Codec.
func (c *codec) Parse(text []byte, obj apis.Object, strict bool) (faults []error, err error) {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("%T is no %s", obj, c.kind)
	}
	content := map[string]any{}
	if strict {
		faults, err = kjson.UnmarshalStrict(text, &content)
	} else {
		err = kjson.UnmarshalCaseSensitivePreserveInts(text, &content)
	}
	if err != nil {
		return nil, err
	}
	u.Object = content
	unknown, err := c.coerce(u, coercion{report: strict})
	for _, path := range unknown {
		faults = append(faults, fmt.Errorf("unknown field %q", path))
	}
	return faults, err
}

// Load is part of wire.Codec. What is stored gets the defaults of the version
// that it is stored in.
func (c *codec) Load(text []byte) (apis.Object, error) {
	u, err := c.read(text)
	if err != nil {
		return nil, err
	}
	return c.as(u, c.version)
}

// read reads what is stored, in the version that it is stored in.
func (c *codec) read(text []byte) (*unstructured.Unstructured, error) {
	u := &unstructured.Unstructured{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(text, &u.Object); err != nil {
		return nil, err
	}
	v := c.versions[u.GroupVersionKind().Version]
	if v == nil {
		return nil, fmt.Errorf("it is stored as %s, which is no version of %s", u.GetAPIVersion(), c.Name)
	}
	if _, err := c.coerce(u, coercion{lenient: true}); err != nil {
		return nil, err
	}
	defaulting.Default(u.Object, v.schema)
	return u, nil
}

// Store is part of wire.Codec.
func (c *codec) Store(obj apis.Object) ([]byte, error) {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("%T is no %s", obj, c.kind)
	}
	if c.version != c.storage {
		var err error
		if u, err = c.as(u.DeepCopy(), c.storage); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(u.Object)
	return append(text, '\n'), err
}

// Ready is part of wire.Codec. A webhook is asked once for all objects.
func (c *codec) Ready(texts [][]byte) ([][]byte, error) {
	if !c.hooked() {
		return nil, nil
	}
	var others []*unstructured.Unstructured
	var at []int
	for i, text := range texts {
		u, err := c.read(text)
		if err != nil {
			return nil, err
		}
		if u.GroupVersionKind().Version != c.version {
			others, at = append(others, u), append(at, i)
		}
	}
	if len(others) == 0 {
		return nil, nil
	}
	made, err := c.convert(others, c.version)
	if err != nil {
		return nil, err
	}
	out := slices.Clone(texts)
	for i, u := range made {
		if _, err := c.coerce(u, coercion{}); err != nil {
			return nil, err
		}
		if out[at[i]], err = json.Marshal(u.Object); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// A coercion says how an object is brought into the shape of its schema.
type coercion struct {
	report  bool // tell which fields were taken away
	lenient bool // metadata that cannot be read is dropped, not refused
}

// coerce does to an object what decoding into a Go type does by itself: it
// takes away fields that the schema does not know and nulls that it does not
// want, and refuses metadata that is none.
func (f *family) coerce(u *unstructured.Unstructured, how coercion) (unknown []string, err error) {
	apiVersion, kind := u.GetAPIVersion(), u.GetKind()
	meta, has, unknown, err := objectmeta.GetObjectMetaWithOptions(u.Object, objectmeta.ObjectMetaOptions{
		DropMalformedFields: how.lenient, ReturnUnknownFieldPaths: how.report,
	})
	if err != nil {
		return nil, err
	}
	gvk := u.GroupVersionKind()
	if v := f.versions[gvk.Version]; v != nil && gvk.GroupKind() == f.kind {
		if !f.Spec.PreserveUnknownFields {
			opts := structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: how.report}
			unknown = append(unknown, pruning.PruneWithOptions(u.Object, v.schema, true, opts)...)
			defaulting.PruneNonNullableNullsWithoutDefaults(u.Object, v.schema)
		}
		ferr, more := objectmeta.CoerceWithOptions(nil, u.Object, v.schema, false, objectmeta.CoerceOptions{
			DropInvalidFields: how.lenient, ReturnUnknownFieldPaths: how.report,
		})
		if ferr != nil {
			return nil, ferr
		}
		unknown = append(unknown, more...)
		if how.lenient && meta.Generation == 0 {
			meta.Generation = 1 // as very old servers have not stored it
		}
	}
	// Pruning has taken them for fields like others.
	if kind != "" {
		u.SetKind(kind)
	}
	if apiVersion != "" {
		u.SetAPIVersion(apiVersion)
	}
	if has {
		err = objectmeta.SetObjectMeta(u.Object, meta)
	}
	return unknown, err
}
