package patch

import (
	"fmt"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/knarr-dev/knarr/apis"
)

// Owners knows the schema of all built-in kinds, which the account of field
// owners needs. Reading the schema takes a tenth of a second and is begun
// when Owners is made.
type Owners struct {
	converter func() managedfields.TypeConverter
	custom    bool // the kind has no Go type
}

// NewOwners returns the owners of fields of the kinds in scheme.
func NewOwners(scheme *runtime.Scheme) *Owners {
	o := &Owners{converter: sync.OnceValue(func() managedfields.TypeConverter {
		return newTrusting(applyconfigurations.NewTypeConverter(scheme))
	})}
	go o.converter()
	return o
}

// NewTypedOwners returns the owners of fields of kinds that have Go types and
// whose schema converter knows.
func NewTypedOwners(converter func() managedfields.TypeConverter) *Owners {
	return &Owners{converter: sync.OnceValue(func() managedfields.TypeConverter { return newTrusting(converter()) })}
}

// NewCustomOwners returns the owners of fields of a kind that has no Go type.
func NewCustomOwners(converter func() managedfields.TypeConverter) *Owners {
	return &Owners{converter: converter, custom: true}
}

// Converter is the schema of all built-in kinds, once it is read.
func (o *Owners) Converter() managedfields.TypeConverter { return o.converter() }

// A Forms converts between the versions that a kind is served in.
type Forms interface {
	// New returns an empty object as it is in gv.
	New(gv schema.GroupVersion) (apis.Object, error)
	// Convert returns obj as it is in gv.
	Convert(obj apis.Object, gv schema.GroupVersion) (apis.Object, error)
	Default(obj apis.Object)
}

// Fields keeps account of who owns the fields of one kind's objects, as
// written through one of its endpoints.
type Fields struct {
	gvk    schema.GroupVersionKind
	sub    string
	resets fieldpath.Filter // nil where all may be owned
	owners *Owners
	make   func() (*managedfields.FieldManager, error)
	blank  func() (blank, error)
}

// For returns the account of kind gvk at the endpoint of a subresource, ""
// for the main one. Fields at or below the paths of resets are never owned
// by who writes there.
func (o *Owners) For(gvk schema.GroupVersionKind, forms Forms, sub string, resets []string) *Fields {
	f := &Fields{gvk: gvk, sub: sub, owners: o}
	filters := map[fieldpath.APIVersion]fieldpath.Filter{}
	if len(resets) > 0 {
		set := fieldpath.NewSet()
		for _, r := range resets {
			set.Insert(path(r))
		}
		f.resets = fieldpath.NewExcludeSetFilter(set)
		filters[fieldpath.APIVersion(gvk.GroupVersion().String())] = f.resets
	}
	f.make = sync.OnceValues(func() (*managedfields.FieldManager, error) {
		conv := convertor{forms, o.custom}
		if o.custom {
			return managedfields.NewDefaultCRDFieldManager(o.converter(), conv, conv, conv, gvk, gvk.GroupVersion(), sub, filters)
		}
		return managedfields.NewDefaultFieldManager(o.converter(), conv, conv, conv, gvk, gvk.GroupVersion(), sub, filters)
	})
	f.blank = sync.OnceValues(func() (b blank, err error) {
		if b.obj, err = forms.New(gvk.GroupVersion()); err == nil {
			b.obj.GetObjectKind().SetGroupVersionKind(gvk)
			if t, ok := o.converter().(*trusting); ok {
				b.shape = t.shape(gvk, b.obj, resets)
			}
		}
		return b, err
	})
	return f
}

// path is the field path of a JSON path: metadata.labels.
func path(json string) fieldpath.Path {
	var p fieldpath.Path
	for name := range strings.SplitSeq(json, ".") {
		p = append(p, fieldpath.PathElement{FieldName: &name})
	}
	return p
}

// Create notes that manager made obj, which is new, and returns obj with the
// account in its metadata.
func (f *Fields) Create(obj apis.Object, manager string) (apis.Object, error) {
	b, err := f.blank()
	if err != nil {
		return nil, err
	}
	if f.create(b, obj, manager) {
		return obj, nil
	}
	return f.Update(b.obj.DeepCopyObject().(apis.Object), obj, manager)
}

// Update notes that manager made obj of old and returns obj with the account
// in its metadata. What cannot be accounted for is left out.
func (f *Fields) Update(old, obj apis.Object, manager string) (apis.Object, error) {
	m, err := f.make()
	if err != nil {
		return nil, err
	}
	old.GetObjectKind().SetGroupVersionKind(f.gvk)
	obj.GetObjectKind().SetGroupVersionKind(f.gvk)
	return m.UpdateNoErrors(old, obj, manager).(apis.Object), nil
}

// convertor makes what the field manager wants to know of a kind from Forms.
type convertor struct {
	forms  Forms
	custom bool
}

func (c convertor) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	obj, err := c.forms.New(gvk.GroupVersion())
	if err != nil {
		return nil, err
	}
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	return obj, nil
}

func (c convertor) Default(obj runtime.Object) {
	if o, ok := obj.(apis.Object); ok {
		c.forms.Default(o)
	}
}

func (c convertor) ConvertToVersion(in runtime.Object, to runtime.GroupVersioner) (runtime.Object, error) {
	gvk := in.GetObjectKind().GroupVersionKind()
	target, ok := to.KindForGroupVersionKinds([]schema.GroupVersionKind{gvk})
	if !ok {
		if gv, isGV := to.(schema.GroupVersion); isGV {
			target = gv.WithKind(gvk.Kind)
		} else {
			return nil, runtime.NewNotRegisteredErrForTarget("knarr", nil, to)
		}
	}
	obj, ok := in.(apis.Object)
	if u, isMap := in.(*unstructured.Unstructured); isMap && !c.custom {
		typed, err := c.forms.New(gvk.GroupVersion())
		if err != nil {
			return nil, err
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, typed); err != nil {
			return nil, err
		}
		obj, ok = typed, true
	}
	if !ok {
		return nil, fmt.Errorf("convert %T to %s", in, target)
	}
	obj, err := c.forms.Convert(obj, target.GroupVersion())
	if err != nil {
		return nil, err
	}
	obj.GetObjectKind().SetGroupVersionKind(target)
	return obj, nil
}

func (c convertor) Convert(_, _, _ any) error {
	return fmt.Errorf("convert in place: objects are converted by version")
}

func (c convertor) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}
