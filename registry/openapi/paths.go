package openapi

import (
	"net/http"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/knarr-dev/knarr/apis"
)

// The media types of bodies.
var (
	objects  = []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf"}
	streams  = append(slices.Clone(objects), "application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch")
	patches  = []string{"application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml"}
	anything = []string{"*/*"}
)

// A verb is what is known of the operations that do it.
type verb struct {
	method  string
	action  string // x-kubernetes-action
	id, say string // how operationId and description begin
	takes   []string
	gives   []string
	options any  // whose fields are the parameters
	body    bool // takes an object
	many    bool // on the collection
	codes   map[int]string
}

// verbs are those of stored kinds. Watching is a list with a parameter.
var verbs = map[string]verb{
	"get":              {http.MethodGet, "get", "read", "read the specified", anything, objects, nil, false, false, ok},
	"list":             {http.MethodGet, "list", "list", "list or watch objects of kind", anything, streams, metav1.ListOptions{}, false, true, ok},
	"create":           {http.MethodPost, "post", "create", "create a", anything, objects, metav1.CreateOptions{}, true, true, made},
	"update":           {http.MethodPut, "put", "replace", "replace the specified", anything, objects, metav1.UpdateOptions{}, true, false, put},
	"patch":            {http.MethodPatch, "patch", "patch", "partially update the specified", patches, objects, metav1.PatchOptions{}, false, false, put},
	"delete":           {http.MethodDelete, "delete", "delete", "delete a", anything, objects, metav1.DeleteOptions{}, false, false, map[int]string{200: "OK", 202: "Accepted"}},
	"deletecollection": {http.MethodDelete, "deletecollection", "deleteCollection", "delete collection of", anything, objects, metav1.ListOptions{}, false, true, ok},
}

var (
	ok   = map[int]string{200: "OK"}
	made = map[int]string{200: "OK", 201: "Created", 202: "Accepted"}
	put  = map[int]string{200: "OK", 201: "Created"}
)

// doc builds the document of one group version.
type doc struct {
	schemas

	gv    schema.GroupVersion
	new   func(schema.GroupVersionKind) (runtime.Object, error)
	paths map[string]spec.PathItem
	v3    bool // the document is made to become one of v3

	customs map[string]*apis.Definition // by the names of their kinds and lists
}

// kind adds the paths of a kind.
func (d *doc) kind(def *apis.Definition) {
	root := "/apis/" + d.gv.String()
	if d.gv.Group == "" {
		root = "/api/" + d.gv.Version
	}
	gvk := d.gv.WithKind(def.Kind)
	if def.Custom != nil {
		d.customs[def.Kind], d.customs[def.Custom.List] = def, def
	}
	if def.Scope == apis.Namespaced {
		in := root + "/namespaces/{namespace}/" + def.Plural
		d.collection(in, "Namespaced"+def.Kind, gvk, def.Verbs, true)
		if slices.Contains(def.Verbs, "list") {
			d.collection(root+"/"+def.Plural, def.Kind+"ForAllNamespaces", gvk, []string{"list"}, false)
		}
		d.object(in+"/{name}", "Namespaced"+def.Kind, gvk, def)
		return
	}
	d.collection(root+"/"+def.Plural, def.Kind, gvk, def.Verbs, false)
	d.object(root+"/"+def.Plural+"/{name}", def.Kind, gvk, def)
}

// collection adds the path of the kind's objects together.
func (d *doc) collection(path, id string, gvk schema.GroupVersionKind, can []string, namespaced bool) {
	var item spec.PathItem
	for _, name := range []string{"list", "create", "deletecollection"} {
		if slices.Contains(can, name) {
			d.add(&item, verbs[name], id, gvk, gvk)
		}
	}
	d.put(path, item, d.where(gvk.Kind, namespaced, false))
}

// object adds the paths of one object and its subresources.
func (d *doc) object(path, id string, gvk schema.GroupVersionKind, def *apis.Definition) {
	namespaced := def.Scope == apis.Namespaced
	var item spec.PathItem
	for _, name := range []string{"get", "update", "patch", "delete"} {
		if slices.Contains(def.Verbs, name) {
			d.add(&item, verbs[name], id, gvk, gvk)
		}
	}
	d.put(path, item, d.where(gvk.Kind, namespaced, true))
	edits := []string{"get", "update", "patch"}
	sub := func(name string, kind schema.GroupVersionKind, can []string) {
		var item spec.PathItem
		for _, v := range edits {
			if slices.Contains(can, v) {
				d.add(&item, verbs[v], id+title(name), kind, kind)
			}
		}
		d.put(path+"/"+name, item, d.where(kind.Kind, namespaced, true))
	}
	for _, s := range def.Subs {
		can := s.Verbs
		if can == nil {
			can = edits
		}
		sub(s.Name, gvk, can)
	}
	if def.Scale != nil {
		sub("scale", schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}, edits)
	}
	for _, a := range def.Acts {
		d.act(path, id, gvk, a, namespaced)
	}
}

// act adds the paths of a subresource that does something: one that takes an
// object, or one that connects.
func (d *doc) act(path, id string, parent schema.GroupVersionKind, a apis.Act, namespaced bool) {
	kind := a.Kind
	if kind.Version == "" {
		kind = d.gv.WithKind(kind.Kind)
	}
	obj, err := d.new(kind)
	connects := err == nil && strings.HasSuffix(kind.Kind, "Options")
	var item spec.PathItem
	switch {
	case connects || a.Name == "log":
		for _, method := range methods(a.Verbs) {
			op := operation("connect"+title(strings.ToLower(method))+id+title(a.Name), "connect "+method+" requests to "+a.Name+" of "+parent.Kind, d.gv)
			op.Consumes, op.Produces = anything, anything
			respond(op, http.StatusOK, "OK", spec.StringProperty())
			mark(op, "connect", kind)
			set(&item, method, op)
		}
	default:
		v := verbs["create"]
		v.say = "create " + a.Name + " of a"
		d.add(&item, v, id+title(a.Name), kind, kind)
	}
	params := d.where(kind.Kind, namespaced, true)
	switch {
	case a.Name == "log":
		params = append(params, d.parameters(reflect.TypeFor[corev1.PodLogOptions]())...)
	case connects:
		params = append(params, d.parameters(reflect.TypeOf(obj).Elem())...)
	}
	d.put(path+"/"+a.Name, item, params)
	if a.Name == "proxy" {
		d.put(path+"/proxy/{path}", item, append(slices.Clone(params), parameter("path", "path", "string", "path to the resource")))
	}
}

func methods(can []string) (all []string) {
	for _, pair := range [][2]string{{"get", "GET"}, {"create", "POST"}, {"update", "PUT"}, {"patch", "PATCH"}, {"delete", "DELETE"}} {
		if slices.Contains(can, pair[0]) {
			all = append(all, pair[1])
		}
	}
	return all
}

// add adds the operation of a verb to a path. It takes and gives objects of
// kind; a list gives their list.
func (d *doc) add(item *spec.PathItem, v verb, id string, gvk, kind schema.GroupVersionKind) {
	op := operation(v.id+title(group(d.gv))+title(d.gv.Version)+id, v.say+" "+kind.Kind, d.gv)
	op.Consumes, op.Produces = v.takes, v.gives
	def := d.customs[gvk.Kind]
	if def != nil {
		op.Consumes, op.Produces = custom(v.takes), custom(v.gives)
	}
	answer := kind
	switch v.action {
	case "list":
		answer.Kind += "List"
		if def != nil {
			answer.Kind = def.Custom.List
		}
	case "deletecollection":
		answer = metav1.SchemeGroupVersion.WithKind("Status")
	}
	if v.action == "delete" && !d.returns(gvk) {
		answer = metav1.SchemeGroupVersion.WithKind("Status")
	}
	if v.body {
		op.Parameters = append(op.Parameters, body(d.ref(kind), true))
	}
	if v.action == "patch" {
		op.Parameters = append(op.Parameters, body(d.ref(metav1.SchemeGroupVersion.WithKind("Patch")), true))
	}
	if v.action == "delete" || v.action == "deletecollection" {
		op.Parameters = append(op.Parameters, body(d.ref(metav1.SchemeGroupVersion.WithKind("DeleteOptions")), false))
	}
	if v.options != nil {
		op.Parameters = append(op.Parameters, d.parameters(reflect.TypeOf(v.options))...)
	}
	for code, text := range v.codes {
		respond(op, code, text, d.ref(answer))
	}
	mark(op, v.action, kind)
	set(item, v.method, op)
}

// custom are the media types among all that kinds without a Go type know.
func custom(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(m string) bool {
		return strings.Contains(m, "protobuf") || strings.Contains(m, "strategic")
	})
}

// returns reports whether DELETE answers with the object in documents.
func (d *doc) returns(gvk schema.GroupVersionKind) bool {
	return gvk.Kind == "Pod" || gvk.Kind == "Service" || gvk.Kind == "PersistentVolume"
}

// mark adds what tools find an operation by.
func mark(op *spec.Operation, action string, kind schema.GroupVersionKind) {
	op.AddExtension("x-kubernetes-action", action)
	op.AddExtension("x-kubernetes-group-version-kind", gvkValue(kind))
}

func gvkValue(kind schema.GroupVersionKind) map[string]any {
	return map[string]any{"group": kind.Group, "version": kind.Version, "kind": kind.Kind}
}

func operation(id, text string, gv schema.GroupVersion) *spec.Operation {
	op := &spec.Operation{}
	op.ID, op.Description, op.Tags, op.Schemes = id, text, []string{group(gv) + "_" + gv.Version}, []string{"https"}
	op.Responses = &spec.Responses{}
	op.Responses.StatusCodeResponses = map[int]spec.Response{}
	respond(op, http.StatusUnauthorized, "Unauthorized", nil)
	return op
}

// respond adds an answer to an operation.
func respond(op *spec.Operation, code int, text string, s *spec.Schema) {
	var r spec.Response
	r.Description, r.Schema = text, s
	op.Responses.StatusCodeResponses[code] = r
}

// parameter is one in the path or query. Those in the path are required.
func parameter(in, name, typ, text string) (p spec.Parameter) {
	p.In, p.Name, p.Description, p.Type = in, name, text, typ
	p.Required, p.UniqueItems = in == "path", true
	return p
}

// body is the parameter that is the body.
func body(s *spec.Schema, required bool) (p spec.Parameter) {
	p.In, p.Name, p.Schema, p.Required = "body", "body", s, required
	return p
}

// group is the group's name in ids.
func group(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "core"
	}
	name, _, _ := strings.Cut(gv.Group, ".")
	return name
}

func title(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func set(item *spec.PathItem, method string, op *spec.Operation) {
	*map[string]**spec.Operation{
		http.MethodGet: &item.Get, http.MethodPost: &item.Post, http.MethodPut: &item.Put,
		http.MethodPatch: &item.Patch, http.MethodDelete: &item.Delete,
	}[method] = op
}

func (d *doc) put(path string, item spec.PathItem, params []spec.Parameter) {
	if item.Get == nil && item.Post == nil && item.Put == nil && item.Patch == nil && item.Delete == nil {
		return
	}
	item.Parameters = params
	d.paths[path] = item
}

// where are the parameters that are in the path, and pretty.
func (d *doc) where(kind string, namespaced, one bool) (params []spec.Parameter) {
	if one {
		params = append(params, parameter("path", "name", "string", "name of the "+kind))
	}
	if namespaced {
		params = append(params, parameter("path", "namespace", "string", "object name and auth scope, such as for teams and projects"))
	}
	return append(params, parameter("query", "pretty", "string", "whether the answer is to be indented for people to read"))
}

// parameters are the fields of an options type, in the query.
func (d *doc) parameters(t reflect.Type) (params []spec.Parameter) {
	text := docs(t)
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		typ := f.Type
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		simple := map[reflect.Kind]string{
			reflect.String: "string", reflect.Bool: "boolean", reflect.Int64: "integer", reflect.Int32: "integer",
		}[typ.Kind()]
		if name == "" || simple == "" {
			continue
		}
		params = append(params, parameter("query", name, simple, text[name]))
	}
	return params
}

// metaTypes are the types that are the same in every group.
var metaTypes = map[string]reflect.Type{
	"Status":        reflect.TypeFor[metav1.Status](),
	"DeleteOptions": reflect.TypeFor[metav1.DeleteOptions](),
}

// ref defines a kind's type and returns a reference to it.
func (d *doc) ref(kind schema.GroupVersionKind) *spec.Schema {
	if kind.Kind == "Patch" {
		const name = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch"
		if _, done := d.defs[name]; !done {
			var p spec.Schema
			p.Type, p.Description = spec.StringOrArray{"object"}, docs(reflect.TypeFor[metav1.Patch]())[""]
			d.defs[name] = p
		}
		return spec.RefSchema("#/definitions/" + name)
	}
	t, known := metaTypes[kind.Kind]
	if def := d.customs[kind.Kind]; def != nil && kind.GroupVersion() == d.gv {
		return d.custom(def, kind.Kind)
	}
	if !known {
		obj, err := d.new(kind)
		if err != nil {
			return spec.StringProperty() // a kind without a Go type has no schema
		}
		t = reflect.TypeOf(obj).Elem()
	}
	ref := d.model(t)
	def := d.defs[modelName(t)]
	def.AddExtension("x-kubernetes-group-version-kind", []any{gvkValue(kind)})
	d.defs[modelName(t)] = def
	return &ref
}
