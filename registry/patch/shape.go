package patch

import (
	"reflect"
	"slices"
	"strconv"
	"sync"

	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// A form says how the fields of a value are owned: one by one, or as a whole.
type form byte

const (
	odd    form = iota // not to be told from the Go type alone
	leaf               // as a whole
	object             // by the fields of a struct
	table              // by the keys of a map
	set                // by the items of a list
	keyed              // by items of a list, which some of their fields tell apart
)

// A shape is what the schema says of values of a Go type, so far as it
// matters to who owns them.
type shape struct {
	form   form
	fields []member // of an object, sorted by name
	elem   *shape   // of a table or a keyed list
	keys   []key    // of the elements of a keyed list, sorted by name
}

// A member is a field of a struct.
type member struct {
	*value.FieldCacheEntry

	name  string // as it stands in an account: "f:spec"
	shape *shape
}

// A key is a field that tells the items of a list apart.
type key struct {
	*value.FieldCacheEntry

	missing any // its value where the field is left out, nil for none
}

// shapes makes each shape once.
type shapes struct {
	mu     sync.Mutex
	schema *schema.Schema // the one that there is
	made   map[shapeKey]*shape
}

type shapeKey struct {
	t   reflect.Type
	ref schema.TypeRef
}

// unowned are the metadata that nobody owns.
var unowned = []string{"name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation", "managedFields", "resourceVersion"}

// root is the shape of whole objects of a type, without what nobody owns.
func (ss *shapes) root(model *typed.TypedValue, t reflect.Type, resets []string) *shape {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.schema = model.Schema()
	root := ss.of(t, model.TypeRef()).without(append([]string{"apiVersion", "kind"}, resets...))
	for i, m := range root.fields {
		if m.JsonName == "metadata" {
			root.fields[i].shape = m.shape.without(unowned)
		}
	}
	return root
}

// without is a copy of s that lacks some fields.
func (s *shape) without(names []string) *shape {
	c := *s
	c.fields = slices.DeleteFunc(slices.Clone(s.fields), func(m member) bool { return slices.Contains(names, m.JsonName) })
	return &c
}

// of is the shape of values of type t. The caller holds mu.
func (ss *shapes) of(t reflect.Type, ref schema.TypeRef) *shape {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	id := shapeKey{t, ref}
	if s := ss.made[id]; s != nil {
		return s
	}
	s := &shape{}
	ss.made[id] = s // before it is whole, for those that it holds itself
	atom, ok := ss.schema.Resolve(ref)
	if ok {
		ss.fill(s, t, atom)
	}
	return s
}

func (ss *shapes) fill(s *shape, t reflect.Type, atom schema.Atom) {
	list, fields := atom.List, atom.Map
	switch {
	case (list == nil || list.ElementRelationship == schema.Atomic) && (fields == nil || fields.ElementRelationship == schema.Atomic):
		s.form = leaf
	case value.TypeReflectEntryOf(t).CanConvertToUnstructured() || atom.Scalar != nil || list != nil && fields != nil:
	case fields != nil && t.Kind() == reflect.Struct:
		ss.object(s, t, fields)
	case fields != nil && t.Kind() == reflect.Map && t.Key().Kind() == reflect.String && len(fields.Fields) == 0:
		s.form, s.elem = table, ss.of(t.Elem(), fields.ElementType)
	case list != nil && t.Kind() == reflect.Slice && list.ElementRelationship == schema.Associative && len(list.Keys) == 0:
		s.form = set
	case list != nil && t.Kind() == reflect.Slice && list.ElementRelationship == schema.Associative:
		ss.keyed(s, t.Elem(), list)
	}
}

func (ss *shapes) object(s *shape, t reflect.Type, fields *schema.Map) {
	s.form = object
	for _, e := range value.TypeReflectEntryOf(t).OrderedFields() {
		m := member{FieldCacheEntry: e, name: strconv.Quote("f:" + e.JsonName), shape: &shape{}}
		if f, known := fields.FindField(e.JsonName); known {
			m.shape = ss.of(e.GetFrom(reflect.Zero(t)).Type(), f.Type)
		}
		s.fields = append(s.fields, m)
	}
}

func (ss *shapes) keyed(s *shape, t reflect.Type, list *schema.List) {
	item, ok := ss.schema.Resolve(list.ElementType)
	if !ok || item.Map == nil || t.Kind() != reflect.Struct {
		return
	}
	fields := value.TypeReflectEntryOf(t).Fields()
	for _, name := range slices.Sorted(slices.Values(list.Keys)) {
		f, known := item.Map.FindField(name)
		if !known || fields[name] == nil {
			return
		}
		s.keys = append(s.keys, key{fields[name], f.Default})
	}
	s.form, s.elem = keyed, ss.of(t, list.ElementType)
}
