// Package rest does the verbs on objects: one path by which every kind is
// read, made, changed and deleted, whatever it is. What is particular to a
// kind it asks its apis.Definition. It knows nothing of HTTP; package server
// does.
package rest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/admit"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/patch"
	"github.com/knarr-dev/knarr/registry/wire"
)

// A Service holds all kinds and what they share. Use New, Add the kinds, then
// run the cache.
type Service struct {
	Store  registry.Store
	Cache  *cache.Cache
	Owners *patch.Owners
	Admit  *admit.Chain

	// Stale reports whether what is stored at a key is to be written anew
	// though it is the same, as encrypted with an old key; nil for never.
	Stale func(ctx context.Context, key string) (bool, error)

	// The time and the dice, for tests to set.
	Now      func() time.Time
	NewUID   func() types.UID
	NameTail func() string // five letters that make a generated name

	mu    sync.Mutex
	table atomic.Pointer[table]
}

// A table is all kinds that are served. It never changes; another takes its place.
type table struct {
	kinds   map[schema.GroupResource]*Kind
	order   []*Kind
	builtin int // so many of order are there from the start
}

// A Reserver finds what an object needs besides its key, as a service needs
// its address, and sets it in obj, which has been prepared. On create old is
// nil, on delete obj is. What is wrong with obj it leaves to the kind's
// validation to say, which comes after it.
type Reserver func(ctx context.Context, obj, old apis.Object) (Commit, error)

// A Commit stores an object with what it needs. It calls write, once or
// until it works, with the writes that must happen with that of the object or
// not at all, and returns what write returned last. A conflict of one of
// those writes means that somebody was faster, and something else be found.
type Commit func(ctx context.Context, write func(...registry.Op) (int64, error)) (int64, error)

// A Kind is one served kind.
type Kind struct {
	*apis.Definition

	Objects *cache.Kind // nil for a kind that is not stored
	Reserve Reserver    // nil for a kind that needs nothing

	forms   []*Form
	service *Service
	owners  *patch.Owners
	between patch.Forms // converts between versions; the form itself where nil
}

// A Form is a kind as it is served in one group and version.
type Form struct {
	*Kind

	Wire   *wire.Kind
	view   *apis.View
	owners map[string]*patch.Fields // by subresource, "" for the object itself
}

// Add serves a kind and returns it.
func (s *Service) Add(d *apis.Definition) *Kind { return s.AddStored(d, nil, s.Owners) }

// AddStored serves a kind that is stored in a way of its own, and whose fields
// have owners that keep their own account.
func (s *Service) AddStored(d *apis.Definition, storage *wire.Storage, owners *patch.Owners) *Kind {
	k := &Kind{Definition: d, service: s, owners: owners}
	stored := &Form{Kind: k, Wire: wire.NewKind(d.GroupVersionKind, d.New)}
	stored.Wire.Stored(storage)
	k.forms = []*Form{stored}
	for i := range d.Views {
		v := &d.Views[i]
		k.forms = append(k.forms, &Form{Kind: k, Wire: wire.NewKind(v.WithKind(d.Kind), v.New), view: v})
	}
	if d.Stored() {
		k.Objects = s.Cache.Add(stored.Wire, cache.Config{
			Path: d.StoredAt, Cluster: bool(d.Scope), Fields: d.Fields, Indexed: d.Indexed,
		})
		for _, f := range k.forms {
			f.account()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	order := append(slices.Clone(s.Kinds()), k)
	s.table.Store(newTable(order, len(order)))
	return k
}

// newTable finds kinds by name; of several versions of one the first.
func newTable(order []*Kind, builtin int) *table {
	t := &table{kinds: map[schema.GroupResource]*Kind{}, order: order, builtin: builtin}
	for _, k := range slices.Backward(order) {
		t.kinds[k.GroupResource()] = k
	}
	return t
}

// account sets up who may own which fields at each endpoint of the form.
func (f *Form) account() {
	var resets []string
	if f.Sub("status") != nil {
		resets = []string{"status"}
	}
	between := f.between
	if between == nil {
		between = f
	}
	account := func(sub string, resets []string) *patch.Fields {
		return f.Kind.owners.For(f.Wire.GroupVersionKind, between, sub, resets)
	}
	f.owners = map[string]*patch.Fields{"": account("", resets)}
	if f.Scale != nil {
		f.owners["scale"] = account("scale", nil)
	}
	for _, s := range f.Subs {
		f.owners[s.Name] = account(s.Name, s.Keeps)
	}
}

// Kind returns the kind called gr, nil if it is not served.
func (s *Service) Kind(gr schema.GroupResource) *Kind {
	if t := s.table.Load(); t != nil {
		return t.kinds[gr]
	}
	return nil
}

// Kinds returns all kinds in the order in which they were added.
func (s *Service) Kinds() []*Kind {
	if t := s.table.Load(); t != nil {
		return t.order
	}
	return nil
}

// Forms are the kind's forms, the stored one first.
func (k *Kind) Forms() []*Form { return k.forms }

// FieldOwners know the schema of the kind.
func (k *Kind) FieldOwners() *patch.Owners { return k.owners }

// Main is the form in which the kind is stored.
func (k *Kind) Main() *Form { return k.forms[0] }

// IsView reports whether the form is another than the stored one.
func (f *Form) IsView() bool { return f.view != nil }

// Show returns a stored object as the form has it.
func (f *Form) Show(stored apis.Object) apis.Object {
	if f.view == nil {
		return stored
	}
	obj := f.view.New()
	f.view.Fill(obj, stored)
	obj.GetObjectKind().SetGroupVersionKind(f.Wire.GroupVersionKind)
	return obj
}

// read returns an object in the form as it is stored.
func (f *Form) read(obj apis.Object) apis.Object {
	if f.view == nil {
		return obj
	}
	stored := f.Definition.New()
	f.view.Read(stored, obj)
	stored.GetObjectKind().SetGroupVersionKind(f.GroupVersionKind)
	return stored
}

// Bytes is an object of the cache as bytes in the form.
func (f *Form) Bytes(o *cache.Object) (*wire.Object, error) {
	if f.view == nil {
		return o.In(f.Wire), nil
	}
	stored, err := f.Decode(o)
	if err != nil {
		return nil, err
	}
	shown := f.Show(stored)
	shown.SetResourceVersion("")
	value, err := f.Wire.Encode(shown)
	if err != nil {
		return nil, err
	}
	return f.Wire.Object(value, o.Rev)
}

// JSON is the text of an object of the cache as an item of a list in the
// form. That of the stored form is kept for the next who asks.
func (f *Form) JSON(o *cache.Object) ([]byte, error) {
	if f.view == nil && o.Kind == f.Wire {
		return f.Objects.JSON(o)
	}
	b, err := f.Bytes(o)
	if err != nil {
		return nil, err
	}
	text, _, err := b.JSON()
	return text, err
}

// Versions are the forms of the kind called gr: of a custom kind those of all
// its versions. Any object of one can be had in the others.
func (s *Service) Versions(gr schema.GroupResource) []*Form {
	k := s.Kind(gr)
	switch {
	case k == nil:
		return nil
	case k.Custom == nil:
		return k.forms
	}
	var all []*Form
	for _, k := range s.Kinds() {
		if k.GroupResource() == gr {
			all = append(all, k.forms...)
		}
	}
	return all
}

// In is an object as admission sees it, in one of the form's own.
func (f *Form) In(obj apis.Object) (apis.Object, error) {
	if f.between == nil {
		return f.Show(obj), nil
	}
	return f.between.Convert(obj, f.Wire.GroupVersion())
}

// Back is an object that the form has, as admission sees it for a request in
// another version of the kind.
func (f *Form) Back(obj apis.Object, asked schema.GroupVersion) (apis.Object, error) {
	if f.between == nil {
		return f.read(obj), nil
	}
	return f.between.Convert(obj, asked)
}

// New is part of patch.Forms.
func (k *Kind) New(gv schema.GroupVersion) (apis.Object, error) {
	for _, f := range k.forms {
		if f.Wire.GroupVersion() == gv {
			return f.Wire.New(), nil
		}
	}
	return nil, fmt.Errorf("%s is not served in %s", k.Plural, gv)
}

// Convert is part of patch.Forms.
func (k *Kind) Convert(obj apis.Object, gv schema.GroupVersion) (apis.Object, error) {
	for _, from := range k.forms {
		if reflect.TypeOf(from.Wire.New()) != reflect.TypeOf(obj) {
			continue
		}
		if from.Wire.GroupVersion() == gv {
			return obj, nil
		}
		for _, to := range k.forms {
			if to.Wire.GroupVersion() == gv {
				return to.Show(from.read(obj)), nil
			}
		}
	}
	return nil, fmt.Errorf("%T is not served in %s", obj, gv)
}

// Default is part of patch.Forms: an object of the stored form gets its
// defaults, one in a view gets them when it is read.
func (k *Kind) Default(obj apis.Object) {
	if reflect.TypeOf(obj) == reflect.TypeOf(k.Definition.New()) {
		k.Definition.Default(obj)
	}
}

// path is the object's key in the store.
func (k *Kind) path(namespace, name string) string {
	return registry.Path(k.Definition, namespace, name)
}

// notFound is the error for an object that is not there.
func (k *Kind) notFound(name string) error { return apierrors.NewNotFound(k.GroupResource(), name) }

// unserved maps an error of the store to what a client is told.
func (k *Kind) unserved(err error) error {
	var status *apierrors.StatusError
	switch {
	case err == nil || errors.As(err, &status):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return apierrors.NewTimeoutError("request did not complete within requested timeout - context deadline exceeded", 0)
	case errors.Is(err, registry.ErrCompacted):
		return apierrors.NewResourceExpired("The resourceVersion for the provided list is too old.")
	}
	return apierrors.NewInternalError(err)
}

// Lookup returns the object of a kind, decoded: for those parts of the server
// that decide by what other objects say. It shows what the cache shows, and
// asks the store for what the cache does not have.
func (s *Service) Lookup(ctx context.Context, gr schema.GroupResource, namespace, name string) (apis.Object, error) {
	obj, err := s.Known(ctx, gr, namespace, name)
	if !apierrors.IsNotFound(err) {
		return obj, err
	}
	cur, err := s.Kind(gr).stored(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	return cur.Decode()
}

// Known is Lookup by the cache alone: what has just been made may not be found.
func (s *Service) Known(_ context.Context, gr schema.GroupResource, namespace, name string) (apis.Object, error) {
	k := s.Kind(gr)
	if k == nil || k.Objects == nil {
		return nil, fmt.Errorf("%s is not stored here", gr)
	}
	if o := k.Objects.Get(registry.Key(namespace, name)); o != nil {
		return k.Decode(o)
	}
	return nil, apierrors.NewNotFound(gr, name)
}

// All returns the objects of a kind in a namespace, "" for all, decoded.
func (s *Service) All(ctx context.Context, gr schema.GroupResource, namespace string) ([]apis.Object, error) {
	k := s.Kind(gr)
	if k == nil || k.Objects == nil {
		return nil, fmt.Errorf("%s is not stored here", gr)
	}
	list, err := k.Objects.List(ctx, cache.Query{Selection: cache.Selection{Namespace: namespace}})
	if err != nil {
		return nil, err
	}
	objs := make([]apis.Object, len(list.Objects))
	for i, o := range list.Objects {
		if objs[i], err = k.Decode(o); err != nil {
			return nil, err
		}
	}
	return objs, nil
}

// stored reads an object from the store, past the cache.
func (k *Kind) stored(ctx context.Context, namespace, name string) (*wire.Object, error) {
	r, err := k.service.Store.Get(ctx, k.path(namespace, name))
	if errors.Is(err, registry.ErrNotFound) {
		return nil, k.notFound(name)
	}
	if err != nil {
		return nil, k.unserved(err)
	}
	return k.Main().Wire.Object(r.Value, r.Rev)
}

// keep puts back into obj what paths name, as it is in old.
func keep(obj, old apis.Object, paths []string) error {
	for _, path := range paths {
		into, from := reflect.ValueOf(obj).Elem(), reflect.ValueOf(old).Elem()
		for name := range strings.SplitSeq(path, ".") {
			var ok bool
			if into, ok = fieldNamed(into, name); !ok {
				return fmt.Errorf("%T has no field %s", obj, path)
			}
			from, _ = fieldNamed(from, name)
		}
		into.Set(from)
	}
	return nil
}

// fieldNamed finds a struct's field by its name in JSON.
func fieldNamed(v reflect.Value, name string) (reflect.Value, bool) {
	if v.Kind() != reflect.Struct {
		return reflect.Value{}, false
	}
	for i := range v.NumField() {
		tag, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if tag == name {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}
