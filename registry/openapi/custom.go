package openapi

import (
	"fmt"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/util"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/knarr-dev/knarr/apis"
)

// custom defines a custom kind, or its list, and returns a reference to it.
func (d *doc) custom(def *apis.Definition, kind string) *spec.Schema {
	name := customName(d.gv.WithKind(kind))
	ref := spec.RefSchema("#/definitions/" + name)
	if _, done := d.defs[name]; done {
		return ref
	}
	d.model(reflect.TypeFor[metav1.ObjectMeta]())
	if kind == def.Custom.List {
		d.defs[name] = d.customList(def)
		return ref
	}
	d.defs[name] = *def.Custom.Schema(d.v3)
	return ref
}

// selectable says by which fields objects can be selected.
const selectable = "x-kubernetes-selectable-fields"

func (d *doc) customList(def *apis.Definition) spec.Schema {
	text := fmt.Sprintf("List of %s. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md", def.Plural)
	meta := d.model(reflect.TypeFor[metav1.ListMeta]())
	var s spec.Schema
	s.Typed("object", "").WithDescription(fmt.Sprintf("%s is a list of %s", def.Custom.List, def.Kind)).WithRequired("items")
	s.SetProperty("items", *spec.ArrayProperty(d.custom(def, def.Kind)).WithDescription(text))
	s.SetProperty("metadata", *meta.WithDescription(docs(reflect.TypeFor[metav1.PartialObjectMetadataList]())["metadata"]))
	for name, doc := range docs(reflect.TypeFor[metav1.TypeMeta]()) {
		if name != "" {
			s.SetProperty(name, *spec.StringProperty().WithDescription(doc))
		}
	}
	s.AddExtension("x-kubernetes-group-version-kind", []any{gvkValue(d.gv.WithKind(def.Custom.List))})
	if fields, ok := d.defs[customName(d.gv.WithKind(def.Kind))].Extensions[selectable]; ok {
		s.AddExtension(selectable, fields)
	}
	return s
}

// customName is the name of a custom kind's model.
func customName(gvk schema.GroupVersionKind) string {
	return util.ToRESTFriendlyName(gvk.GroupVersion().String() + "." + gvk.Kind)
}
