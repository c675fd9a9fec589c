package crd

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	openapiv2 "k8s.io/apiextensions-apiserver/pkg/controller/openapi/v2"
	generatedopenapi "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/util"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/knarr-dev/knarr/registry/patch"
)

// The names of the models that every kind's schema refers to.
var (
	objectMeta = metav1.ObjectMeta{}.OpenAPIModelName()
	typeMeta   = metav1.TypeMeta{}.OpenAPIModelName()
)

// Where models stand in documents of v2, by whose references schemas are made.
const models = "#/definitions/"

// library are the schemas of the types of meta.k8s.io and apiextensions.k8s.io.
var library = sync.OnceValue(func() map[string]common.OpenAPIDefinition {
	return generatedopenapi.GetOpenAPIDefinitions(func(name string) spec.Ref { return spec.MustCreateRef(models + name) })
})

// published is the schema of a version for the documents of OpenAPI v3, or
// v2, of which some of what schemas can say must be left out.
func (f *family) published(v *version, v3 bool) *spec.Schema {
	anything := marked(&spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}}, v)
	if v.schema == nil || len(structuralschema.ValidateStructural(nil, v.schema)) > 0 {
		return anything
	}
	unfolded := v.schema.Unfold()
	switch {
	case v3:
		return marked(native(unfolded, false), v)
	case unfolded.XPreserveUnknownFields || f.Spec.PreserveUnknownFields:
		return anything
	}
	s := native(openapiv2.ToStructuralOpenAPIV2(unfolded), true)
	undefaulted(s)
	return marked(s, v)
}

// undefaulted takes the defaults out of a schema, which has none in v2.
func undefaulted(s *spec.Schema) {
	if s == nil {
		return
	}
	s.Default = nil
	for name, p := range s.Properties {
		undefaulted(&p)
		s.Properties[name] = p
	}
	if s.Items != nil {
		undefaulted(s.Items.Schema)
	}
	if s.AdditionalProperties != nil {
		undefaulted(s.AdditionalProperties.Schema)
	}
}

// digest is another for another version of the schema.
func (f *family) digest(v *version) string {
	sum := sha256.New()
	if err := json.NewEncoder(sum).Encode([]any{v.CustomResourceDefinitionVersion, f.Spec.PreserveUnknownFields}); err != nil {
		panic(err) // plain data always encodes
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// marked says in a schema of which kind it is.
func marked(s *spec.Schema, v *version) *spec.Schema {
	s.AddExtension("x-kubernetes-group-version-kind", []any{map[string]any{"group": v.gvk.Group, "version": v.gvk.Version, "kind": v.gvk.Kind}})
	if len(v.SelectableFields) > 0 {
		var paths []any
		for _, f := range v.SelectableFields {
			paths = append(paths, map[string]any{"fieldPath": strings.TrimPrefix(f.JSONPath, ".")})
		}
		s.AddExtension("x-kubernetes-selectable-fields", paths)
	}
	return s
}

// native is a schema with what all objects have.
func native(s *structuralschema.Structural, v2 bool) *spec.Schema {
	out := s.ToKubeOpenAPI()
	out.SetProperty("metadata", metadata())
	types := library()[typeMeta].Schema.Properties
	out.SetProperty("apiVersion", types["apiVersion"])
	out.SetProperty("kind", types["kind"])
	embedded(out, v2)
	return out
}

func metadata() spec.Schema {
	return *spec.RefSchema(models + objectMeta).WithDescription(metav1.PartialObjectMetadata{}.SwaggerDoc()["metadata"])
}

// Where it is said what each field of all objects is for.
const conventions = "More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"

// embedded gives what is embedded in a schema what all objects have.
func embedded(s *spec.Schema, v2 bool) {
	if s == nil {
		return
	}
	for name, p := range s.Properties {
		embedded(&p, v2)
		s.Properties[name] = p
	}
	if s.Items != nil {
		embedded(s.Items.Schema, v2)
	}
	if s.AdditionalProperties != nil {
		embedded(s.AdditionalProperties.Schema, v2)
	}
	if open, _ := s.Extensions.GetBool("x-kubernetes-preserve-unknown-fields"); open && v2 {
		return // kubectl would take what is named for all there is
	}
	if is, _ := s.Extensions.GetBool("x-kubernetes-embedded-resource"); !is {
		return
	}
	s.SetProperty("apiVersion", *spec.StringProperty().WithDescription("apiVersion defines the versioned schema of this representation of an object. " + conventions + "#resources"))
	s.SetProperty("kind", *spec.StringProperty().WithDescription("kind is a string value representing the type of this object. In CamelCase. " + conventions + "#types-kinds"))
	s.SetProperty("metadata", metadata())
	for _, name := range []string{"kind", "apiVersion"} {
		if !slices.Contains(s.Required, name) {
			s.Required = append(s.Required, name)
		}
	}
}

// modelName is the name of a custom kind's model in documents.
func modelName(v *version) string {
	return util.ToRESTFriendlyName(v.gvk.GroupVersion().String() + "." + v.gvk.Kind)
}

// owners keep account of who owns which fields of the family's objects, by
// its schemas: they say which lists are merged, and by what.
func (f *family) owners() *patch.Owners {
	return patch.NewCustomOwners(sync.OnceValue(func() managedfields.TypeConverter {
		all := metaModels()
		for _, v := range f.versions {
			all[modelName(v)] = f.published(v, true)
		}
		c, err := managedfields.NewTypeConverter(all, f.Spec.PreserveUnknownFields)
		if err != nil {
			slog.Error("lists are owned as wholes: a schema cannot be read", "obj", "CustomResourceDefinition/"+f.Name, "err", err)
			return managedfields.NewDeducedTypeConverter()
		}
		return c
	}))
}

// metaModels are the models that ObjectMeta is made of, and itself.
func metaModels() map[string]*spec.Schema {
	all := map[string]*spec.Schema{}
	gather(objectMeta, all)
	return all
}

func gather(name string, into map[string]*spec.Schema) {
	if into[name] != nil {
		return
	}
	def := library()[name]
	into[name] = &def.Schema
	for _, other := range def.Dependencies {
		gather(other, into)
	}
}

// DefinitionOwners keep account of who owns which fields of definitions
// themselves, which client-go has no schema of.
func DefinitionOwners() *patch.Owners {
	return patch.NewTypedOwners(func() managedfields.TypeConverter {
		all := map[string]*spec.Schema{}
		name := apiextensionsv1.CustomResourceDefinition{}.OpenAPIModelName()
		gather(name, all)
		gvk := apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition")
		all[name].AddExtension("x-kubernetes-group-version-kind", []any{map[string]any{"group": gvk.Group, "version": gvk.Version, "kind": gvk.Kind}})
		c, err := managedfields.NewTypeConverter(all, false)
		if err != nil {
			panic(err) // the library's schema of its own type
		}
		return c
	})
}
