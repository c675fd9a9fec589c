package patch

import (
	"reflect"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"

	"github.com/knarr-dev/knarr/apis"
)

// A trusting converter takes objects of Go types as they are, where the one
// that it is made of holds each of them against the schema, which no object
// of a Go type can fail in anything but the keys of its lists. Those are
// looked at again by whatever is done with it. What comes from clients as
// maps is held against the schema.
type trusting struct {
	managedfields.TypeConverter

	models sync.Map // *typed.TypedValue, an empty object, by schema.GroupVersionKind
	shapes shapes
}

func newTrusting(c managedfields.TypeConverter) *trusting {
	return &trusting{TypeConverter: c, shapes: shapes{made: map[shapeKey]*shape{}}}
}

// shape is that of whole objects like empty, nil where there is none.
func (c *trusting) shape(gvk schema.GroupVersionKind, empty apis.Object, resets []string) *shape {
	m, err := c.model(gvk)
	if err != nil || slices.ContainsFunc(resets, func(path string) bool { return strings.Contains(path, ".") }) {
		return nil
	}
	if s := c.shapes.root(m, reflect.TypeOf(empty), resets); s.form == object {
		return s
	}
	return nil
}

// ObjectToTyped is part of managedfields.TypeConverter.
func (c *trusting) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	o, ok := obj.(apis.Object)
	if _, isMap := obj.(*unstructured.Unstructured); isMap || !ok {
		return c.TypeConverter.ObjectToTyped(obj, opts...)
	}
	m, err := c.model(obj.GetObjectKind().GroupVersionKind())
	if err != nil {
		return nil, err
	}
	o = unaccounted(o)
	v, err := value.NewValueReflect(o)
	if err != nil {
		return nil, err
	}
	return typed.AsTypedUnvalidated(whole{v, o}, m.Schema(), m.TypeRef()), nil //nolint:staticcheck // checking is still a third of the cost
}

// unaccounted is obj without its account, which nobody owns and which is dear
// to compare. It shares all else.
func unaccounted(obj apis.Object) apis.Object {
	if len(obj.GetManagedFields()) == 0 {
		return obj
	}
	from := reflect.ValueOf(obj).Elem()
	to := reflect.New(from.Type())
	to.Elem().Set(from)
	o := to.Interface().(apis.Object)
	o.SetManagedFields(nil)
	return o
}

// model is something that has the schema of a kind.
func (c *trusting) model(gvk schema.GroupVersionKind) (*typed.TypedValue, error) {
	if m, ok := c.models.Load(gvk); ok {
		return m.(*typed.TypedValue), nil
	}
	empty := &unstructured.Unstructured{}
	empty.SetGroupVersionKind(gvk)
	m, err := c.TypeConverter.ObjectToTyped(empty)
	if err != nil {
		return nil, err
	}
	c.models.Store(gvk, m)
	return m, nil
}

// TypedToObject is part of managedfields.TypeConverter. What was made of an
// object is that object.
func (c *trusting) TypedToObject(v *typed.TypedValue) (runtime.Object, error) {
	if w, ok := v.AsValue().(whole); ok {
		return w.obj, nil
	}
	return c.TypeConverter.TypedToObject(v)
}

// whole is an object as a value that remembers what it is made of.
type whole struct {
	value.Value

	obj apis.Object
}
