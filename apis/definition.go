package apis

import (
	"reflect"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// A Definition is a Resource with its type erased: what registry works with.
// No func of it is nil but Scale's, Spec and Grace, which a kind may lack.
type Definition struct {
	schema.GroupVersionKind

	Plural     string
	Short      []string
	Categories []string
	Scope      Scope
	Verbs      []string
	StoredAt   string
	Deprecated string

	New      func() Object
	Default  func(obj Object)
	Prepare  func(obj, old Object)
	Validate func(obj, old Object) field.ErrorList
	Warn     func(obj, old Object) []string
	Name     func(name string, prefix bool) []string
	Spec     func(obj Object) any

	Subs  []Sub[Object]
	Acts  []Act
	Scale *Scale[Object]

	Fields  map[string]func(Object) string
	Indexed string
	Columns []Column[Object]
	Views   []View

	Lifetime Lifetime[Object]

	Custom *Custom // nil for a kind that has a Go type
}

// Custom is what is known of a kind that a CustomResourceDefinition defines,
// in one of its versions, besides what is known of all kinds.
type Custom struct {
	Singular string
	List     string                     // the kind of lists
	Schema   func(v3 bool) *spec.Schema // for the OpenAPI documents of v2 or v3, made anew each time
	Digest   string                     // which changes where the schema does
	Storage  string                     // the version that objects are stored in
	Ending   bool                       // it is being deleted, and takes no new objects
	Known    bool                       // discovery may tell of it
}

// GroupResource names the kind as errors and rules do.
func (d *Definition) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: d.Group, Resource: d.Plural}
}

// Singular is what one object of the kind is called.
func (d *Definition) Singular() string {
	if d.Custom != nil {
		return d.Custom.Singular
	}
	return strings.ToLower(d.Kind)
}

// Stored reports whether objects of the kind are kept, rather than answered
// and forgotten as reviews are.
func (d *Definition) Stored() bool { return slices.Contains(d.Verbs, "get") }

// Sub returns the editing subresource called name, nil where there is none.
func (d *Definition) Sub(name string) *Sub[Object] {
	for i := range d.Subs {
		if d.Subs[i].Name == name {
			return &d.Subs[i]
		}
	}
	return nil
}

// Define erases the type of r and fills its gaps, so that no caller ever
// tests a hook for nil.
func Define[T Object](r Resource[T]) Definition {
	typ := reflect.TypeFor[T]().Elem()
	d := Definition{
		GroupVersionKind: schema.GroupVersionKind{Kind: typ.Name()},

		Plural: r.Plural, Short: r.Short, Categories: r.Categories, Scope: r.Scope, Verbs: r.Verbs, StoredAt: r.StoredAt,
		Deprecated: r.Deprecated,
		New:        func() Object { return reflect.New(typ).Interface().(Object) },
		Acts:       r.Acts, Indexed: r.Indexed, Views: r.Views, Name: r.Name,
		Default:  func(Object) {},
		Prepare:  both(r.Prepare),
		Validate: checks(r.Validate),
		Warn:     func(_, _ Object) []string { return nil },
		Fields:   map[string]func(Object) string{},
		Lifetime: lifetime(r.Lifetime),
	}
	if d.Verbs == nil {
		d.Verbs = AllVerbs
	}
	if d.StoredAt == "" {
		d.StoredAt = r.Plural
	}
	if d.Name == nil {
		d.Name = subdomain
	}
	if r.Default != nil {
		d.Default = func(obj Object) { r.Default(obj.(T)) }
	}
	if r.Warn != nil {
		d.Warn = func(obj, old Object) []string { return r.Warn(obj.(T), as[T](old)) }
	}
	if r.Spec != nil {
		d.Spec = func(obj Object) any { return r.Spec(obj.(T)) }
	}
	for name, f := range r.Fields {
		d.Fields[name] = func(obj Object) string { return f(obj.(T)) }
	}
	for _, s := range r.Subs {
		d.Subs = append(d.Subs, sub(s))
	}
	if s := r.Scale; s != nil {
		d.Scale = &Scale[Object]{
			Wanted:   func(obj Object) *int32 { return s.Wanted(obj.(T)) },
			Has:      func(obj Object) int32 { return s.Has(obj.(T)) },
			Selector: func(obj Object) string { return s.Selector(obj.(T)) },
			Want:     func(obj Object, n int32) { *s.Wanted(obj.(T)) = n },
			Path:     "spec.replicas",
		}
	}
	d.Columns = columns(r.Columns)
	return d
}

// In puts the kinds into group gv.
func In(gv schema.GroupVersion, kinds ...Definition) Group {
	for i := range kinds {
		kinds[i].Group, kinds[i].Version = gv.Group, gv.Version
	}
	return Group{GroupVersion: gv, Resources: kinds}
}

func sub[T Object](s Sub[T]) Sub[Object] {
	e := Sub[Object]{Name: s.Name, Verbs: s.Verbs, Keeps: s.Keeps}
	if s.Edit != nil {
		e.Edit = func(into, obj Object) { s.Edit(into.(T), obj.(T)) }
	}
	if s.Prepare != nil {
		e.Prepare = both(s.Prepare)
	}
	if s.Validate != nil {
		e.Validate = checks(s.Validate)
	}
	if s.Stamp != nil {
		e.Stamp = func(obj, old Object, now metav1.Time) { s.Stamp(obj.(T), as[T](old), now) }
	}
	if s.Warn != nil {
		e.Warn = func(obj, old Object) []string { return s.Warn(obj.(T), as[T](old)) }
	}
	return e
}

func lifetime[T Object](l Lifetime[T]) Lifetime[Object] {
	e := Lifetime[Object]{
		TTL: l.TTL, UpsertsOnUpdate: l.UpsertsOnUpdate, NeedsVersion: l.NeedsVersion,
		ReturnsDeleted: l.ReturnsDeleted, OrphansDefault: l.OrphansDefault, OrphansWarning: l.OrphansWarning,
		Held:  func(Object) bool { return false },
		Leave: func(Object) {},
	}
	if l.Held != nil {
		e.Held = func(obj Object) bool { return l.Held(obj.(T)) }
	}
	if l.Leave != nil {
		e.Leave = func(obj Object) { l.Leave(obj.(T)) }
	}
	if l.Grace != nil {
		e.Grace = func(obj Object, asked *int64) int64 { return l.Grace(obj.(T), asked) }
	}
	return e
}

func both[T Object](f func(obj, old T)) func(obj, old Object) {
	if f == nil {
		return func(_, _ Object) {}
	}
	return func(obj, old Object) { f(obj.(T), as[T](old)) }
}

func checks[T Object](f func(obj, old T) field.ErrorList) func(obj, old Object) field.ErrorList {
	if f == nil {
		return func(_, _ Object) field.ErrorList { return nil }
	}
	return func(obj, old Object) field.ErrorList { return f(obj.(T), as[T](old)) }
}

// as is obj as a T, the zero T where there is no object.
func as[T Object](obj Object) T {
	t, _ := obj.(T)
	return t
}

// columns erases the columns and adds Name and Age where they are not given.
func columns[T Object](given []Column[T]) (all []Column[Object]) {
	has := func(name string) bool {
		return slices.ContainsFunc(given, func(c Column[T]) bool { return c.Name == name })
	}
	if !has("Name") {
		all = append(all, Column[Object]{Name: "Name", Cell: func(obj Object, _ time.Time) any { return obj.GetName() }})
	}
	aged := has("Age") || has("First Seen")
	age := Column[Object]{Name: "Age", Cell: func(obj Object, now time.Time) any { return Age(obj.GetCreationTimestamp(), now) }}
	if given == nil {
		// As upstream: a kind without columns of its own tells when it was made.
		return append(all, Column[Object]{Name: "Created At", Type: "date", Cell: func(obj Object, _ time.Time) any {
			return obj.GetCreationTimestamp().UTC().Format(time.RFC3339)
		}})
	}
	for _, c := range given {
		if c.Cell == nil {
			continue
		}
		if c.Wide && !aged {
			all, aged = append(all, age), true
		}
		all = append(all, Column[Object]{Name: c.Name, Type: c.Type, Wide: c.Wide, Cell: func(obj Object, now time.Time) any {
			return c.Cell(obj.(T), now)
		}})
	}
	if !aged {
		all = append(all, age)
	}
	return all
}
