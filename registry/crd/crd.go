package crd

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/rest"
	"github.com/knarr-dev/knarr/registry/wire"
)

// Kind names the kind of definitions.
var Kind = apiextensionsv1.Resource("customresourcedefinitions")

// Config is what Definitions are made of.
type Config struct {
	Service *rest.Service
	Changed func() // called when another set of kinds is served
	Call    Caller // of webhooks that convert objects
}

// Definitions are all definitions and the kinds that they define. Several
// servers may follow the same: what one writes the others see, and none would
// write anything else. Use New, then Begin, then Run.
type Definitions struct {
	Config

	kind  *rest.Kind
	ask   chan chan struct{}
	ended chan struct{} // closed when Run is

	// What follows belongs to Begin, and then to Run.
	known     map[string]*apiextensionsv1.CustomResourceDefinition
	installed map[string]*installed
	changed   bool            // not all that is installed is served
	leaving   []*cache.Kind   // those that are served no more
	failed    map[string]bool // definitions to look at again
	cleaning  map[string]bool // by name and UID: those whose objects are being deleted
	cleaned   chan string
}

// An installed family is one whose objects the cache keeps.
type installed struct {
	*family

	wire    *wire.Kind // of the objects as they are stored
	objects *cache.Kind
	stored  *rest.Kind // of the version that is stored, be it served or not
	kinds   []*rest.Kind
}

// New returns the definitions that are, or will be, in the service's store.
func New(cfg Config) *Definitions {
	return &Definitions{
		Config: cfg, kind: cfg.Service.Kind(Kind), ask: make(chan chan struct{}), ended: make(chan struct{}),
		known: map[string]*apiextensionsv1.CustomResourceDefinition{}, installed: map[string]*installed{},
		failed: map[string]bool{}, cleaning: map[string]bool{}, cleaned: make(chan string),
	}
}

// Begin serves the kinds whose definitions are among records, which are all
// that is in the store. It is for Found of the cache, which fills them then.
func (d *Definitions) Begin(records []registry.Record) {
	clear(d.installed) // from a try that has failed
	prefix := cache.Root + d.kind.StoredAt + "/"
	for _, r := range records {
		if !strings.HasPrefix(r.Key, prefix) {
			continue
		}
		c, err := definition(r.Value)
		if err != nil {
			slog.Error("a definition in the store cannot be read", "key", r.Key, "err", err)
			continue
		}
		if !d.serves(c) {
			continue
		}
		f, err := newFamily(c, d.Call)
		if err != nil {
			slog.Error("a definition cannot be served", "obj", "CustomResourceDefinition/"+c.Name, "err", err)
			continue
		}
		f.known = apihelpers.IsCRDConditionTrue(c, apiextensionsv1.Established)
		i, cfg := d.prepare(f)
		i.objects = d.Service.Cache.Add(i.wire, cfg)
		d.finish(i)
	}
	d.publish()
}

// serves reports whether a definition's kinds are to be served.
func (d *Definitions) serves(c *apiextensionsv1.CustomResourceDefinition) bool {
	accepted := apihelpers.IsCRDConditionTrue(c, apiextensionsv1.NamesAccepted) || apihelpers.IsCRDConditionTrue(c, apiextensionsv1.Established)
	return accepted && !d.builtIn(c)
}

// builtIn reports whether a definition's objects would be among those of a
// kind that is built in.
func (d *Definitions) builtIn(c *apiextensionsv1.CustomResourceDefinition) bool {
	k := d.Service.Kind(schema.GroupResource{Group: c.Spec.Group, Resource: c.Spec.Names.Plural})
	return k != nil && k.Custom == nil
}

// Run follows the definitions until ctx ends. The cache must have been loaded.
func (d *Definitions) Run(ctx context.Context) error {
	defer close(d.ended)
	for ctx.Err() == nil {
		if err := d.follow(ctx); err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "the watch of definitions has ended", "err", err)
		}
	}
	return ctx.Err()
}

// again is how long something that did not work is left alone.
const again = time.Second

func (d *Definitions) follow(ctx context.Context) error {
	w, err := d.kind.Objects.Watch(ctx, cache.Selection{}, 0, true)
	if err != nil {
		return err
	}
	defer w.Close()
	present := map[string]bool{}
	for _, o := range w.Initial {
		d.see(ctx, o)
		present[o.Name()] = true
	}
	for name := range d.known {
		if !present[name] {
			delete(d.known, name)
			d.failed[name] = true
		}
	}
	d.settle(ctx)
	for {
		var asked chan struct{}
		var retry <-chan time.Time
		if len(d.failed) > 0 {
			retry = time.After(again)
		}
		select {
		case <-w.Ready():
		case asked = <-d.ask:
		case key := <-d.cleaned:
			delete(d.cleaning, key)
			d.failed[strings.Split(key, " ")[0]] = true
		case <-retry:
		case <-ctx.Done():
			return ctx.Err()
		}
		events, _, err := w.Take()
		if err != nil {
			return err
		}
		for _, e := range events {
			if e.Type == cache.Deleted {
				delete(d.known, e.Object.Name())
				d.failed[e.Object.Name()] = true
				continue
			}
			d.see(ctx, e.Object)
		}
		d.settle(ctx)
		if asked != nil {
			close(asked)
		}
	}
}

// Settled waits until the kinds that are served are those of all definitions
// that any client has been told of.
func (d *Definitions) Settled(ctx context.Context) error {
	if err := d.Service.Cache.Fresh(ctx); err != nil {
		return err
	}
	done := make(chan struct{})
	select {
	case d.ask <- done:
	case <-d.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-d.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// see notes a definition that is new or has changed.
func (d *Definitions) see(ctx context.Context, o *cache.Object) {
	obj, err := d.kind.Decode(o)
	if err != nil {
		slog.ErrorContext(ctx, "a definition cannot be read", "obj", "CustomResourceDefinition/"+o.Name(), "err", err)
		return
	}
	d.known[o.Name()] = obj.(*apiextensionsv1.CustomResourceDefinition)
	d.failed[o.Name()] = true
}

// settle looks at what has changed, and at what that may matter to.
func (d *Definitions) settle(ctx context.Context) {
	if len(d.failed) == 0 {
		return
	}
	for name := range d.failed {
		_, group, _ := strings.Cut(name, ".")
		for other, c := range d.known {
			// A name that it gives up may be what another waits for.
			if c.Spec.Group == group && !apiequality.Semantic.DeepEqual(c.Spec.Names, c.Status.AcceptedNames) {
				d.failed[other] = true
			}
		}
	}
	todo := slices.Sorted(maps.Keys(d.failed))
	clear(d.failed)
	var judged []*apiextensionsv1.CustomResourceDefinition
	for _, name := range todo {
		c := d.known[name]
		if c == nil {
			d.uninstall(name)
			continue
		}
		c = c.DeepCopy()
		judge(c, slices.Collect(maps.Values(d.known)), metav1.NewTime(d.Service.Now()))
		if err := d.install(ctx, c, apihelpers.IsCRDConditionTrue(d.known[name], apiextensionsv1.Established)); err != nil {
			slog.ErrorContext(ctx, "a definition cannot be served", "obj", "CustomResourceDefinition/"+name, "err", err)
			continue
		}
		judged = append(judged, c)
	}
	// First all is served, then it is said to be, then discovery tells of it.
	d.publish()
	for _, c := range judged {
		if err := d.keep(ctx, c); err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "write the status of a definition", "obj", "CustomResourceDefinition/"+c.Name, "err", err)
			d.failed[c.Name] = true
		}
	}
	d.publish()
}

// keep writes down what was found out about a definition, and has its objects
// deleted if it is to go.
func (d *Definitions) keep(ctx context.Context, c *apiextensionsv1.CustomResourceDefinition) error {
	if !apiequality.Semantic.DeepEqual(c.Status, d.known[c.Name].Status) {
		w, err := d.rewrite(ctx, c.Name, func(now *apiextensionsv1.CustomResourceDefinition) {
			if now.UID == c.UID && now.Generation == c.Generation {
				judge(now, slices.Collect(maps.Values(d.known)), metav1.NewTime(d.Service.Now()))
			}
		})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		d.known[c.Name] = w
		if err := d.install(ctx, w, apihelpers.IsCRDConditionTrue(w, apiextensionsv1.Established)); err != nil {
			return err
		}
	}
	if c.DeletionTimestamp != nil && slices.Contains(c.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer) {
		key := c.Name + " " + string(c.UID)
		if !d.cleaning[key] {
			d.cleaning[key] = true
			go d.clean(ctx, c.DeepCopy(), d.installed[c.Name], key)
		}
	}
	return nil
}

// rewrite changes what stands in the store of a definition.
func (d *Definitions) rewrite(ctx context.Context, name string, change func(*apiextensionsv1.CustomResourceDefinition)) (*apiextensionsv1.CustomResourceDefinition, error) {
	w, err := d.kind.Rewrite(ctx, &rest.Call{Name: name}, func(obj apis.Object) error {
		c, ok := obj.(*apiextensionsv1.CustomResourceDefinition)
		if !ok {
			return errors.New("it is no definition")
		}
		change(c)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return w.Object.(*apiextensionsv1.CustomResourceDefinition), nil
}

// install has the cache keep the objects of a definition's kinds, as the
// definition is now. Known says whether clients may know of the kinds.
func (d *Definitions) install(ctx context.Context, c *apiextensionsv1.CustomResourceDefinition, known bool) error {
	old := d.installed[c.Name]
	if !d.serves(c) {
		d.uninstall(c.Name)
		return nil
	}
	if old != nil && same(old.CustomResourceDefinition, c) {
		if old.known != known || ending(old.CustomResourceDefinition) != ending(c) {
			f := *old.family
			f.CustomResourceDefinition, f.known = c, known
			d.finish(&installed{family: &f, wire: old.wire, objects: old.objects})
		}
		return nil
	}
	f, err := newFamily(c, d.Call)
	if err != nil {
		return err
	}
	f.known = known
	i, cfg := d.prepare(f)
	if old != nil { // the path is the same: it follows from the definition's name
		i.objects = d.Service.Cache.Renew(old.objects, i.wire, cfg)
	} else if i.objects, err = d.Service.Cache.Put(ctx, i.wire, cfg); err != nil {
		d.failed[c.Name] = true
		return err
	}
	d.finish(i)
	return nil
}

// same reports whether two states of a definition define the same.
func same(a, b *apiextensionsv1.CustomResourceDefinition) bool {
	return a.UID == b.UID && apiequality.Semantic.DeepEqual(a.Spec, b.Spec) &&
		apiequality.Semantic.DeepEqual(a.Status.AcceptedNames, b.Status.AcceptedNames)
}

func ending(c *apiextensionsv1.CustomResourceDefinition) bool {
	return apihelpers.IsCRDConditionTrue(c, apiextensionsv1.Terminating)
}

func (d *Definitions) uninstall(name string) {
	i := d.installed[name]
	if i == nil {
		return
	}
	delete(d.installed, name)
	d.changed = true
	d.leaving = append(d.leaving, i.objects)
}

// prepare finds out how the cache is to keep a family's objects.
func (d *Definitions) prepare(f *family) (*installed, cache.Config) {
	w := wire.NewCustom(f.kind.WithVersion(f.storage), f.Status.AcceptedNames.ListKind, &codec{f, f.storage})
	cfg := cache.Config{
		Path: f.Spec.Group + "/" + f.Status.AcceptedNames.Plural, Cluster: f.Spec.Scope == apiextensionsv1.ClusterScoped,
		Fields: map[string]func(apis.Object) string{},
	}
	for _, v := range f.versions {
		for name, read := range v.fields() {
			cfg.Fields[rest.FieldOf(v.Name, name)] = func(obj apis.Object) string {
				u, err := f.as(obj.(*unstructured.Unstructured).DeepCopy(), v.Name)
				if err != nil {
					slog.Error("an object cannot be selected by its fields", "obj", f.kind.Kind+"/"+registry.Key(obj.GetNamespace(), obj.GetName()), "err", err)
					return ""
				}
				return read(u)
			}
		}
	}
	return &installed{family: f, wire: w}, cfg
}

// finish makes a kind of each version of a family whose objects are kept.
func (d *Definitions) finish(i *installed) {
	owners := i.owners()
	kind := func(v *version) *rest.Kind {
		form := i.wire
		if v.Name != i.storage {
			form = wire.NewCustom(v.gvk, i.Status.AcceptedNames.ListKind, &codec{i.family, v.Name})
		}
		return d.Service.Custom(rest.Custom{Definition: i.define(v), Wire: form, Objects: i.objects, Owners: owners, Between: i.family})
	}
	for _, v := range i.served() {
		k := kind(v)
		i.kinds = append(i.kinds, k)
		if v.Name == i.storage {
			i.stored = k
		}
	}
	if i.stored == nil {
		i.stored = kind(i.versions[i.storage])
	}
	d.installed[i.Name] = i
	d.changed = true
}

// publish serves what is installed.
func (d *Definitions) publish() {
	if !d.changed {
		return
	}
	d.changed = false
	var kinds []*rest.Kind
	for _, name := range slices.Sorted(maps.Keys(d.installed)) {
		kinds = append(kinds, d.installed[name].kinds...)
	}
	d.Service.SetCustom(kinds)
	d.Changed()
	for _, k := range d.leaving {
		d.Service.Cache.Remove(k)
	}
	d.leaving = nil
}
