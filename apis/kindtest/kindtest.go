// Package kindtest holds kinds to tables in YAML: an object that is valid, and
// changes to it with what is wrong then and what the client is told. It knows
// no kind, and does to objects what registry/rest does before it stores them.
//
// A table is a document with the fields of Table; several are separated as
// YAML documents are.
package kindtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/knarr-dev/knarr/apis"
)

// A Table is what holds for one kind.
type Table struct {
	Kind  string         `json:"kind"`
	Valid map[string]any `json:"valid"` // can be created, and nobody is warned
	Cases []Case         `json:"cases"`
}

// A Case is one write. Changes are by place, as spec.ports[0].name or
// metadata.annotations['a.b/c'] is one; null takes away what is there.
type Case struct {
	Name string `json:"name"`

	Create map[string]any `json:"create"` // changes to the valid object, which is created
	Stored map[string]any `json:"stored"` // changes to the valid object, which is there already
	Update map[string]any `json:"update"` // changes to what is there
	Sub    string         `json:"sub"`    // the subresource that is updated

	Wrong   []string       `json:"wrong"`
	Warns   []string       `json:"warns"`
	Becomes map[string]any `json:"becomes"` // values by place that the object has then
}

// Run tries each table with the kind that it is of.
func Run(t *testing.T, group apis.Group, tables string) {
	for doc := range strings.SplitSeq(tables, "\n---\n") {
		var table Table
		if err := yaml.UnmarshalStrict([]byte(doc), &table); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(group.Resources, func(d apis.Definition) bool { return d.Kind == table.Kind })
		if i < 0 {
			t.Fatalf("no kind %q in %s", table.Kind, group.GroupVersion)
		}
		t.Run(table.Kind, func(t *testing.T) {
			d := &group.Resources[i]
			try(t, d, table.Valid, Case{Name: "valid"})
			for _, c := range table.Cases {
				try(t, d, table.Valid, c)
			}
		})
	}
}

func try(t *testing.T, d *apis.Definition, valid map[string]any, c Case) {
	t.Run(c.Name, func(t *testing.T) {
		var obj apis.Object
		var errs field.ErrorList
		var warns []string
		if c.Stored == nil && c.Update == nil {
			obj, errs, warns = create(d, changed(valid, c.Create))
		} else {
			stored := changed(valid, c.Stored)
			stored = changed(stored, map[string]any{"metadata.resourceVersion": "1"})
			obj, errs, warns = update(d, c.Sub, changed(stored, c.Update), stored)
		}
		var wrong []string
		for _, err := range errs {
			wrong = append(wrong, err.Error())
		}
		if diff := cmp.Diff(c.Wrong, wrong); diff != "" {
			t.Errorf("what is wrong (-wanted +found):\n%s", diff)
		}
		if diff := cmp.Diff(c.Warns, warns); len(errs) == 0 && diff != "" && len(c.Warns)+len(warns) > 0 {
			t.Errorf("warnings (-wanted +given):\n%s", diff)
		}
		becomes := tree(obj)
		for place, want := range c.Becomes {
			if diff := cmp.Diff(plain(want), at(becomes, steps(place))); diff != "" {
				t.Errorf("%s (-wanted +found):\n%s", place, diff)
			}
		}
	})
}

func create(d *apis.Definition, from any) (apis.Object, field.ErrorList, []string) {
	obj := object(d, from)
	d.Default(obj)
	if d.Spec != nil {
		obj.SetGeneration(1)
	}
	d.Prepare(obj, nil)
	errs := validation.ValidateObjectMetaAccessor(obj, d.Scope == apis.Namespaced, d.Name, field.NewPath("metadata"))
	return obj, append(errs, d.Validate(obj, nil)...), d.Warn(obj, nil)
}

func update(d *apis.Definition, sub string, from, was any) (apis.Object, field.ErrorList, []string) {
	obj, old := object(d, from), object(d, was)
	d.Default(old)
	prepare, validate, warn := d.Prepare, d.Validate, d.Warn
	if s := d.Sub(sub); s != nil {
		obj = part(d, s, obj, old)
		if s.Prepare != nil {
			prepare = s.Prepare
		}
		if s.Validate != nil {
			validate = s.Validate
		}
		if s.Warn != nil {
			warn = s.Warn
		}
	}
	d.Default(obj)
	prepare(obj, old)
	if d.Spec != nil && !equality.Semantic.DeepEqual(d.Spec(obj), d.Spec(old)) {
		obj.SetGeneration(old.GetGeneration() + 1)
	}
	errs := validation.ValidateObjectMetaAccessorUpdate(obj, old, field.NewPath("metadata"))
	return obj, append(errs, validate(obj, old)...), warn(obj, old)
}

// part is what an update through a subresource makes of old.
func part(d *apis.Definition, s *apis.Sub[apis.Object], obj, old apis.Object) apis.Object {
	if s.Edit != nil {
		edited := old.DeepCopyObject().(apis.Object)
		s.Edit(edited, obj)
		return edited
	}
	to, from := tree(obj), tree(old)
	for _, place := range s.Keeps {
		to = set(to, steps(place), at(from, steps(place)))
	}
	return object(d, to)
}

func object(d *apis.Definition, from any) apis.Object {
	obj := d.New()
	if err := json.Unmarshal(text(from), obj); err != nil {
		panic(fmt.Sprintf("%s: %v", d.Kind, err))
	}
	return obj
}

func text(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // it came from YAML or goes to clients
	}
	return raw
}

// plain is v of nothing but what JSON has.
func plain(v any) (p any) {
	if err := json.Unmarshal(text(v), &p); err != nil {
		panic(err)
	}
	return p
}

func tree(obj apis.Object) any { return plain(obj) }

// changed is a copy of v with some of its places changed.
func changed(v any, places map[string]any) any {
	v = plain(v)
	for _, place := range slices.Sorted(maps.Keys(places)) {
		v = set(v, steps(place), plain(places[place]))
	}
	return v
}
