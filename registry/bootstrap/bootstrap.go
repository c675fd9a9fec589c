// Package bootstrap makes the objects that are there from the start: the
// cluster's own namespaces, roles and the like, and what this server tells
// others of itself. On an empty store that is a few commits, on one that has
// it all a look into the cache.
//
// The kubernetes service and its addresses are not among them: whoever
// allocates addresses makes those.
package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/rest"
)

// Config says what a Bootstrap works with.
type Config struct {
	Service *rest.Service
	Host    string // the machine's name, by which the server is told from others
	Address string // where other servers reach this one, "" for not at all
	Hold    string // an ID of this run of the server

	// Authentication returns what servers behind this one must know to find
	// out who sends a request; nil or empty for nothing.
	Authentication func() map[string]string

	MaxOps int // of one commit; 0 for what any etcd takes
}

// anyEtcd is fewer operations than an etcd takes at once that is not told to
// take more.
const anyEtcd = 100

// A Bootstrap makes objects and keeps them. Use New.
type Bootstrap struct{ Config }

// New returns a Bootstrap.
func New(cfg Config) *Bootstrap {
	if cfg.MaxOps == 0 {
		cfg.MaxOps = anyEtcd
	}
	return &Bootstrap{cfg}
}

// A wish is an object that is to be there.
type wish struct {
	gr      schema.GroupResource
	obj     apis.Object
	manager string // in whose name its fields are owned

	// amend changes what is there where it is not as it must be, and reports
	// whether it has; nil where it may be as it likes.
	amend func(have apis.Object) bool

	// finish sets what a new object is not prepared with; nil for nothing.
	finish func(obj apis.Object)
}

// Ensure makes what is missing of all objects. The cache must be loaded.
func (b *Bootstrap) Ensure(ctx context.Context) error {
	now := b.Service.Now()
	wishes := append(namespaces(), roles()...)
	wishes = append(wishes, bindings()...)
	wishes = append(wishes, priorities()...)
	wishes = append(wishes, flows(now)...)
	wishes = append(wishes, b.services()...)
	wishes = append(wishes, tracking(now), b.lease(now))
	if w, ok := b.authentication(); ok {
		wishes = append(wishes, w)
	}
	return b.ensure(ctx, wishes)
}

// Run keeps the objects that must not go missing, and says now and then that
// the server is alive, until ctx ends.
func (b *Bootstrap) Run(ctx context.Context) error {
	renew, look, sweep := time.NewTicker(renewEvery), time.NewTicker(time.Minute), time.NewTicker(time.Hour)
	defer renew.Stop()
	defer look.Stop()
	defer sweep.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-renew.C:
			err = b.ensure(ctx, []wish{b.lease(b.Service.Now())})
		case <-look.C:
			wishes := append(namespaces(), flows(b.Service.Now())...)
			if w, ok := b.authentication(); ok {
				wishes = append(wishes, w)
			}
			err = b.ensure(ctx, wishes)
		case <-sweep.C:
			err = b.sweep(ctx)
		}
		if err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "keep the server's own objects", "err", err)
		}
	}
}

// tries is how often what others change at the same time is looked at anew.
const tries = 10

func (b *Bootstrap) ensure(ctx context.Context, wishes []wish) error {
	for try := 1; ; try++ {
		ops, err := b.ops(wishes)
		if err != nil || len(ops) == 0 {
			return err
		}
		rev, err := b.commit(ctx, ops)
		var conflict *registry.Conflict
		if errors.As(err, &conflict) && try < tries {
			// Another server is at it too: go on from what it has done.
			if err := b.Service.Cache.Fresh(ctx); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("make the server's own objects: %w", err)
		}
		return b.Service.Cache.Wait(ctx, rev)
	}
}

func (b *Bootstrap) commit(ctx context.Context, ops []registry.Op) (rev int64, err error) {
	for len(ops) > 0 {
		n := min(len(ops), b.MaxOps)
		if rev, err = b.Service.Store.Commit(ctx, ops[:n]...); err != nil {
			return 0, err
		}
		ops = ops[n:]
	}
	return rev, nil
}

// ops are the writes that make the wishes true.
func (b *Bootstrap) ops(wishes []wish) (ops []registry.Op, err error) {
	for _, w := range wishes {
		k := b.Service.Kind(w.gr)
		if k == nil {
			continue // a server that does not serve the kind needs none
		}
		var obj apis.Object
		old := int64(0)
		if o := k.Objects.Get(registry.Key(w.obj.GetNamespace(), w.obj.GetName())); o != nil {
			old = o.Rev
			obj, err = amended(o, w)
		} else {
			obj, err = b.made(k, w)
		}
		if err != nil {
			return nil, err
		}
		if obj == nil {
			continue
		}
		value, err := k.Main().Wire.Encode(obj)
		if err != nil {
			return nil, err
		}
		ops = append(ops, registry.Op{Key: registry.Path(k.Definition, obj.GetNamespace(), obj.GetName()), Old: old, Value: value})
	}
	return ops, nil
}

// amended is what o must be changed to, nil if it may stay.
func amended(o *cache.Object, w wish) (apis.Object, error) {
	if w.amend == nil {
		return nil, nil
	}
	obj, err := o.Decode()
	if err != nil || !w.amend(obj) {
		return nil, err
	}
	obj.SetResourceVersion("")
	return obj, nil
}

// made is a new object.
func (b *Bootstrap) made(k *rest.Kind, w wish) (apis.Object, error) {
	obj, now := w.obj, metav1.NewTime(b.Service.Now()).Rfc3339Copy()
	entry, err := ownership(obj, k.GroupVersion().String(), w.manager, now)
	if err != nil {
		return nil, err
	}
	k.Definition.Default(obj)
	obj.SetUID(b.Service.NewUID())
	obj.SetCreationTimestamp(now)
	obj.SetManagedFields([]metav1.ManagedFieldsEntry{entry})
	if k.Spec != nil {
		obj.SetGeneration(1)
	}
	k.Prepare(obj, nil)
	if w.finish != nil {
		w.finish(obj)
	}
	return obj, nil
}

// sweep deletes what servers that are gone have left of themselves.
func (b *Bootstrap) sweep(ctx context.Context) error {
	k := b.Service.Kind(leases)
	all, err := k.Objects.List(ctx, identities())
	if err != nil {
		return err
	}
	var errs []error
	for _, o := range all.Objects {
		obj, err := o.Decode()
		if err != nil || !b.outlived(obj) {
			errs = append(errs, err)
			continue
		}
		version := strconv.FormatInt(o.Rev, 10)
		call := &rest.Call{Namespace: o.Namespace(), Name: o.Name()}
		_, err = k.Delete(ctx, call, &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &version}})
		if !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
