package all

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/randfill"

	"github.com/knarr-dev/knarr/apis"
)

// each runs f for every kind.
func each(t *testing.T, f func(t *testing.T, d *apis.Definition)) {
	for _, g := range Groups {
		for i := range g.Resources {
			d := &g.Resources[i]
			t.Run(d.GroupVersionKind.GroupKind().String(), func(t *testing.T) { f(t, d) })
		}
	}
}

// TestHooksOnAnything fills objects at random: a default set twice is the
// default set once, and no object, however odd, makes a hook panic.
func TestHooksOnAnything(t *testing.T) {
	each(t, func(t *testing.T, d *apis.Definition) {
		fill := randfill.NewWithSeed(1).NilChance(.5).NumElements(0, 3).MaxDepth(12).Funcs(
			func(q *resource.Quantity, c randfill.Continue) {
				*q = *resource.NewMilliQuantity(c.Int63n(1<<40)-1<<20, resource.DecimalSI)
			},
			func(r *runtime.RawExtension, c randfill.Continue) { c.Fill(&r.Raw) },
		)
		for range 200 {
			obj, old := d.New(), d.New()
			fill.Fill(obj)
			fill.Fill(old)
			d.Default(obj)
			d.Default(old)
			once := obj.DeepCopyObject()
			d.Default(obj)
			if !reflect.DeepEqual(once, obj) {
				t.Fatalf("defaults differ the second time:\n%v\n%v", once, obj)
			}
			print1(t, d, obj)
			hooks(d, obj, nil)
			hooks(d, obj, old)
		}
	})
}

func hooks(d *apis.Definition, obj, old apis.Object) {
	if old != nil {
		for _, s := range d.Subs {
			subHooks(&s, obj.DeepCopyObject().(apis.Object), old.DeepCopyObject().(apis.Object))
		}
	}
	d.Prepare(obj, old)
	d.Validate(obj, old)
	d.Warn(obj, old)
	for _, field := range d.Fields {
		field(obj)
	}
	if d.Spec != nil {
		d.Spec(obj)
	}
	if d.Lifetime.Grace != nil {
		d.Lifetime.Grace(obj, nil)
	}
	if s := d.Scale; s != nil {
		*s.Wanted(obj) = 3
		s.Has(obj)
		s.Selector(obj)
	}
}

func subHooks(s *apis.Sub[apis.Object], obj, old apis.Object) {
	if s.Edit != nil {
		into := old.DeepCopyObject().(apis.Object)
		s.Edit(into, obj)
		obj = into
	}
	if s.Prepare != nil {
		s.Prepare(obj, old)
	}
	if s.Validate != nil {
		s.Validate(obj, old)
	}
}

// print1 prints obj, and sees that each cell is what its column says.
func print1(t *testing.T, d *apis.Definition, obj apis.Object) {
	for _, c := range d.Columns {
		switch cell := c.Cell(obj, time.Now()).(type) {
		case string:
		case int64:
		case bool:
		default:
			t.Errorf("column %s holds a %T", c.Name, cell)
		}
	}
}

func TestNames(t *testing.T) {
	kinds, short, stored := map[string]bool{}, map[string]string{}, map[string]string{}
	each(t, func(t *testing.T, d *apis.Definition) {
		if d.Plural == "" || d.Plural != strings.ToLower(d.Plural) {
			t.Errorf("plural %q", d.Plural)
		}
		for _, name := range []string{d.Kind, d.Plural} {
			if kinds[d.Group+"/"+name] {
				t.Errorf("%s is declared twice", name)
			}
			kinds[d.Group+"/"+name] = true
		}
		for _, s := range d.Short {
			if was, twice := short[s]; twice {
				t.Errorf("%s is short for %s too", s, was)
			}
			short[s] = d.Plural
		}
		if was, twice := stored[d.StoredAt]; twice {
			t.Errorf("%s is stored where %s is", d.Plural, was)
		}
		stored[d.StoredAt] = d.Plural
		if d.Indexed != "" && d.Fields[d.Indexed] == nil {
			t.Errorf("%s is indexed and no field", d.Indexed)
		}
	})
}

// TestScheme holds the scheme to the groups: each kind and each view has a
// type, and no version is known that is not served.
func TestScheme(t *testing.T) {
	served := map[string]bool{"meta.k8s.io/v1": true, "meta.k8s.io/v1beta1": true}
	for _, g := range Groups {
		served[g.GroupVersion.String()] = true
	}
	each(t, func(t *testing.T, d *apis.Definition) {
		if obj, err := Scheme().New(d.GroupVersionKind); err != nil || reflect.TypeOf(obj) != reflect.TypeOf(d.New()) {
			t.Errorf("the scheme has %T: %v", obj, err)
		}
		for _, v := range d.Views {
			kinds, _, err := Scheme().ObjectKinds(v.New())
			if err != nil || kinds[0].GroupVersion() != v.GroupVersion || !served[v.GroupVersion.String()] {
				t.Errorf("view %s: %v, %v", v.GroupVersion, kinds, err)
			}
		}
	})
	for _, gv := range Scheme().PrioritizedVersionsAllGroups() {
		if !served[gv.String()] && gv.Version != "__internal" {
			t.Errorf("%s is known and not served", gv)
		}
	}
}
