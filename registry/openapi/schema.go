// Package openapi describes the served kinds to clients as OpenAPI v2 and v3
// documents. The schemas are read off the Go types: their fields by
// reflection, their text from the SwaggerDoc that each has, and how their
// lists merge from the schema that apply goes by. Documents are made when
// they are first asked for.
package openapi

import (
	"reflect"
	"slices"
	"strings"

	"k8s.io/kube-openapi/pkg/validation/spec"
	smd "sigs.k8s.io/structured-merge-diff/v6/schema"
)

// schemas collects the definitions that are needed, by model name.
type schemas struct {
	defs   spec.Definitions
	merges map[string]*smd.Map // how the fields of each model merge
}

// named is what every model type of the API has: its name in documents.
type named interface{ OpenAPIModelName() string }

// documented is what the types of the API have: their text by JSON name, and
// that of the type itself under "".
type documented interface{ SwaggerDoc() map[string]string }

// special is a type that says itself what it is in JSON.
type special interface {
	OpenAPISchemaType() []string
	OpenAPISchemaFormat() string
}

// modelName is the name of a type in documents, "" for one that is not named.
func modelName(t reflect.Type) string {
	if n, ok := reflect.TypeAssert[named](reflect.New(t)); ok {
		return n.OpenAPIModelName()
	}
	return ""
}

func docs(t reflect.Type) map[string]string {
	if d, ok := reflect.TypeAssert[documented](reflect.New(t)); ok {
		return d.SwaggerDoc()
	}
	return nil
}

// model defines a named struct type, if it is not yet, and returns a
// reference to it.
func (s *schemas) model(t reflect.Type) spec.Schema {
	name := modelName(t)
	if _, done := s.defs[name]; !done {
		s.defs[name] = spec.Schema{} // a type may hold itself
		s.defs[name] = s.define(t, name)
	}
	return *spec.RefSchema("#/definitions/" + name)
}

func (s *schemas) define(t reflect.Type, name string) spec.Schema {
	text := docs(t)
	var out spec.Schema
	out.Description = text[""]
	if sp, ok := reflect.TypeAssert[special](reflect.New(t)); ok {
		out.Type, out.Format = sp.OpenAPISchemaType(), sp.OpenAPISchemaFormat()
		return out
	}
	out.Type = spec.StringOrArray{"object"}
	s.fields(t, text, s.merges[name], &out)
	if m := s.merges[name]; m != nil && m.ElementRelationship == smd.Atomic {
		out.AddExtension("x-kubernetes-map-type", "atomic")
	}
	return out
}

// fields adds the fields of a struct to a schema.
func (s *schemas) fields(t reflect.Type, text map[string]string, merge *smd.Map, out *spec.Schema) {
	for f := range t.Fields() {
		tag := strings.Split(f.Tag.Get("json"), ",")
		if slices.Contains(tag, "inline") || f.Anonymous && tag[0] == "" {
			s.fields(f.Type, docs(f.Type), merge, out)
			continue
		}
		if tag[0] == "" || tag[0] == "-" || !f.IsExported() {
			continue
		}
		p := s.of(f.Type)
		p.Description = text[tag[0]]
		if !slices.Contains(tag, "omitempty") && !slices.Contains(tag, "omitzero") && f.Type.Kind() != reflect.Pointer && f.Type.Kind() != reflect.Struct {
			out.Required = append(out.Required, tag[0])
		}
		if how := f.Tag.Get("patchStrategy"); how != "" {
			p.AddExtension("x-kubernetes-patch-strategy", how)
		}
		if key := f.Tag.Get("patchMergeKey"); key != "" {
			p.AddExtension("x-kubernetes-patch-merge-key", key)
		}
		if merge != nil {
			if mf, ok := merge.FindField(tag[0]); ok && mf.Type.Inlined.List != nil {
				listType(mf.Type.Inlined.List, &p)
			}
		}
		if out.Properties == nil {
			out.Properties = map[string]spec.Schema{}
		}
		out.Properties[tag[0]] = p
	}
}

// listType says how a list merges.
func listType(l *smd.List, out *spec.Schema) {
	switch {
	case l.ElementRelationship != smd.Associative:
		out.AddExtension("x-kubernetes-list-type", "atomic")
	case len(l.Keys) > 0:
		keys := make([]any, len(l.Keys))
		for i, k := range l.Keys {
			keys[i] = k
		}
		out.AddExtension("x-kubernetes-list-map-keys", keys)
		out.AddExtension("x-kubernetes-list-type", "map")
	default:
		out.AddExtension("x-kubernetes-list-type", "set")
	}
}

// of is the schema of a type where it is used.
func (s *schemas) of(t reflect.Type) spec.Schema {
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem())
	case reflect.Struct:
		if modelName(t) != "" {
			return s.model(t)
		}
		var out spec.Schema
		out.Type = spec.StringOrArray{"object"}
		s.fields(t, docs(t), nil, &out)
		return out
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return *spec.StrFmtProperty("byte")
		}
		items := s.of(t.Elem())
		return *spec.ArrayProperty(&items)
	case reflect.Map:
		values := s.of(t.Elem())
		return *spec.MapProperty(&values)
	case reflect.Bool:
		return *spec.BooleanProperty()
	case reflect.String:
		return *spec.StringProperty()
	case reflect.Int64, reflect.Int, reflect.Uint64:
		return *spec.Int64Property()
	case reflect.Int32, reflect.Uint32, reflect.Int16, reflect.Int8:
		return *spec.Int32Property()
	case reflect.Float64, reflect.Float32:
		return *spec.Float64Property()
	}
	var anything spec.Schema
	anything.Type = spec.StringOrArray{"object"}
	return anything
}
