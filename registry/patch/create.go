package patch

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"

	"github.com/knarr-dev/knarr/apis"
)

// A blank is an empty object, and the shape of its kind, nil where that cannot
// be told.
type blank struct {
	obj   apis.Object
	shape *shape
}

// create notes in obj, a new object, that all of it is manager's. It does
// what the field manager does by comparing it with an empty object, in a
// tenth of the time, and reports whether it could: obj may be odd.
func (f *Fields) create(from blank, obj apis.Object, manager string) bool {
	if from.shape == nil || reflect.TypeOf(obj) != reflect.TypeOf(from.obj) || len(obj.GetManagedFields()) > 0 {
		return false
	}
	room := rooms.Get().(*[]byte)
	w := writer{b: append((*room)[:0], '{')}
	defer func() {
		if *room = w.b; cap(w.b) <= maxRoom {
			rooms.Put(room)
		}
	}()
	w.children(from.shape, reflect.ValueOf(obj).Elem(), reflect.ValueOf(from.obj).Elem())
	if w.odd {
		return false
	}
	obj.SetManagedFields(nil)
	if len(w.b) == 1 {
		return true
	}
	w.b = append(w.b, '}')
	obj.SetManagedFields([]metav1.ManagedFieldsEntry{{
		Manager: cmp.Or(manager, "unknown"), Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: f.gvk.GroupVersion().String(),
		Time: &metav1.Time{Time: time.Now().UTC()}, FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(string(w.b)), Subresource: f.sub,
	}})
	return true
}

// rooms are where accounts are written, most of which are some KiB large.
var rooms = sync.Pool{New: func() any { return new([]byte) }}

// maxRoom is how large a room may be to be kept.
const maxRoom = 64 << 10

// A writer writes the account of a value's fields, in the order and the
// letters of the field manager's.
type writer struct {
	b   []byte
	odd bool // something cannot be told: what is written is of no use
}

// open begins the entry called name, which stands quoted.
func (w *writer) open(name string) {
	if w.b[len(w.b)-1] != '{' {
		w.b = append(w.b, ',')
	}
	w.b = append(append(w.b, name...), ':', '{')
}

func (w *writer) leaf(name string) {
	w.open(name)
	w.b = append(w.b, '}')
}

// field writes the field called name. It was there before as was; an invalid
// one was not.
func (w *writer) field(name string, s *shape, v, was reflect.Value) {
	switch {
	case s.form == odd:
		w.odd = true
	case s.form == leaf:
		if !was.IsValid() || !same(v, was) {
			w.leaf(name)
		}
	case hollow(s, v):
		if !was.IsValid() || null(v) != null(was) {
			w.leaf(name)
		}
	default:
		w.inside(name, s, deref(v), was)
	}
}

// inside writes a field that has parts. Those of something that was there
// before are written without it.
func (w *writer) inside(name string, s *shape, v, was reflect.Value) {
	mark := len(w.b)
	w.open(name)
	empty := len(w.b)
	if !was.IsValid() {
		w.leaf(`"."`)
	} else if was = deref(was); !was.IsValid() || s.form != object {
		was = reflect.Value{}
	}
	switch s.form {
	case object:
		w.children(s, v, was)
	case table:
		w.table(s, v)
	case set:
		w.set(v)
	case keyed:
		w.keyed(s, v)
	}
	if len(w.b) == empty {
		w.b = w.b[:mark]
		return
	}
	w.b = append(w.b, '}')
}

func (w *writer) children(s *shape, v, was reflect.Value) {
	for i := range s.fields {
		m := &s.fields[i]
		now := m.GetFrom(v)
		if m.CanOmit(now) {
			continue
		}
		var before reflect.Value
		if was.IsValid() {
			if b := m.GetFrom(was); !m.CanOmit(b) {
				before = b
			}
		}
		w.field(m.name, m.shape, now, before)
	}
}

func (w *writer) table(s *shape, v reflect.Value) {
	items := make(map[string]reflect.Value, v.Len())
	for it := v.MapRange(); it.Next(); {
		items[it.Key().String()] = it.Value()
	}
	for _, k := range slices.Sorted(maps.Keys(items)) {
		name := `"f:` + k + `"`
		if !plain(k) {
			name = quoted(fieldpath.FieldNameElement(k))
		}
		w.field(name, s.elem, items[k], reflect.Value{})
	}
}

func (w *writer) set(v reflect.Value) {
	if v.Type().Elem().Kind() != reflect.String {
		w.odd = true
		return
	}
	items := make([]string, v.Len())
	for i := range items {
		items[i] = v.Index(i).String()
	}
	slices.Sort(items)
	for _, it := range slices.Compact(items) {
		name := `"v:\"` + it + `\""`
		if !plain(it) {
			name = quoted(fieldpath.ValueElement(value.NewValueInterface(it)))
		}
		w.leaf(name)
	}
}

// An item is one of a keyed list.
type item struct {
	keys value.FieldList
	v    reflect.Value
}

func (w *writer) keyed(s *shape, v reflect.Value) {
	items := make([]item, v.Len())
	for i := range items {
		items[i] = item{w.keys(s, v.Index(i)), v.Index(i)}
	}
	if w.odd {
		return
	}
	slices.SortStableFunc(items, func(a, b item) int { return a.keys.Compare(b.keys) })
	for i := 0; i < len(items); {
		n := 1
		for i+n < len(items) && items[i].keys.Equals(items[i+n].keys) {
			n++
		}
		name := named(items[i].keys)
		if n == 1 {
			w.field(name, s.elem, items[i].v, reflect.Value{})
		} else {
			w.leaf(name) // what is there twice is not looked into
		}
		i += n
	}
}

// keys are the fields that tell an item from others.
func (w *writer) keys(s *shape, v reflect.Value) (keys value.FieldList) {
	for _, k := range s.keys {
		f := k.GetFrom(v)
		if k.CanOmit(f) {
			if k.missing != nil {
				keys = append(keys, value.Field{Name: k.JsonName, Value: value.NewValueInterface(k.missing)})
			}
			continue
		}
		switch f = deref(f); f.Kind() {
		case reflect.String:
			keys = append(keys, value.Field{Name: k.JsonName, Value: value.NewValueInterface(f.String())})
		case reflect.Int, reflect.Int32, reflect.Int64:
			keys = append(keys, value.Field{Name: k.JsonName, Value: value.NewValueInterface(f.Int())})
		default:
			w.odd = true
		}
	}
	w.odd = w.odd || len(keys) == 0
	return keys
}

// named is the quoted name of an item: "k:{\"name\":\"web\"}".
func named(keys value.FieldList) string {
	var b strings.Builder
	b.WriteString(`"k:{`)
	for i, k := range keys {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`\"` + k.Name + `\":`)
		switch {
		case k.Value.IsString() && plain(k.Value.AsString()):
			b.WriteString(`\"` + k.Value.AsString() + `\"`)
		case k.Value.IsInt():
			b.WriteString(strconv.FormatInt(k.Value.AsInt(), 10))
		default:
			return quoted(fieldpath.PathElement{Key: &keys})
		}
	}
	b.WriteString(`}"`)
	return b.String()
}

// quoted is the name of any part of an account, as the field manager has it.
func quoted(e fieldpath.PathElement) string {
	text, err := fieldpath.NewSet(fieldpath.Path{e}).ToJSON()
	if err != nil {
		return ""
	}
	return string(text[1 : len(text)-len(":{}}")])
}

// plain reports whether a text stands in JSON as it is.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || strings.IndexByte(`"\<>&`, c) >= 0 {
			return false
		}
	}
	return true
}

// hollow reports whether v has no parts.
func hollow(s *shape, v reflect.Value) bool {
	if v = deref(v); !v.IsValid() {
		return true
	}
	if s.form != object {
		return v.Len() == 0
	}
	for i := range s.fields {
		if m := &s.fields[i]; !m.CanOmit(m.GetFrom(v)) {
			return false
		}
	}
	return true
}

// null reports whether v is null in JSON.
func null(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Interface:
		return v.IsNil()
	}
	return false
}

// same reports whether two leaves are the same in JSON.
func same(a, b reflect.Value) bool {
	x, xerr := valueOf(a)
	y, yerr := valueOf(b)
	return xerr == nil && yerr == nil && value.Equals(x, y)
}

func valueOf(v reflect.Value) (value.Value, error) {
	// What is not behind a pointer is not taken.
	switch {
	case v.Kind() == reflect.Pointer:
	case v.CanAddr():
		v = v.Addr()
	default:
		p := reflect.New(v.Type())
		p.Elem().Set(v)
		v = p
	}
	return value.NewValueReflect(v.Interface())
}

// deref is what v points to, which is invalid for nil.
func deref(v reflect.Value) reflect.Value {
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	return v
}
