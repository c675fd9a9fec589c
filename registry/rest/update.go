package rest

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/admit"
	"github.com/knarr-dev/knarr/registry/patch"
	"github.com/knarr-dev/knarr/registry/wire"
)

// A change makes the new object of the old one, both in the form's own
// version. It may be called more than once.
type change func(old apis.Object) (apis.Object, error)

// Update replaces an object by what the client sent.
func (f *Form) Update(ctx context.Context, c *Call, in apis.Object) (Written, error) {
	if name := in.GetName(); name != c.Name {
		return Written{}, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", name, c.Name))
	}
	w, err := f.modify(ctx, c, func(old apis.Object) (apis.Object, error) {
		if uid := in.GetUID(); uid != "" && uid != old.GetUID() {
			return nil, f.another(c, uid, old.GetUID())
		}
		return in.DeepCopyObject().(apis.Object), nil
	}, 0)
	if apierrors.IsNotFound(err) && f.Lifetime.UpsertsOnUpdate && c.Sub == "" && in.GetUID() == "" {
		in.SetResourceVersion("")
		return f.Create(ctx, c, in)
	}
	return w, err
}

// another is the error of an update that means an object of another uid than
// the one that is there. Its text is that of the stock server.
func (k *Kind) another(c *Call, meant, is types.UID) error {
	return apierrors.NewConflict(k.GroupResource(), c.Name, fmt.Errorf(
		"StorageError: invalid object, Code: 4, Key: %s, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: %v, UID in object meta: %v",
		k.path(c.Namespace, c.Name), meant, is))
}

// patchTries is how often a patch is applied anew to what somebody else has
// just written, as upstream.
const patchTries = 5

// Patch changes an object by a patch. Apply creates it where it is not there.
func (f *Form) Patch(ctx context.Context, c *Call, p *patch.Patch) (Written, error) {
	owners := f.owners[c.Sub]
	w, err := f.modify(ctx, c, func(old apis.Object) (apis.Object, error) {
		return f.patched(ctx, c, p, old, owners)
	}, patchTries)
	if !apierrors.IsNotFound(err) || !c.Applied || c.Sub != "" {
		return w, err
	}
	obj, err := f.patched(ctx, c, p, f.Wire.New(), owners)
	if err != nil {
		return Written{}, err
	}
	if obj.GetUID() != "" {
		return Written{}, apierrors.NewConflict(f.GroupResource(), c.Name,
			fmt.Errorf("uid mismatch: the provided object specified uid %s, and no existing object was found", obj.GetUID()))
	}
	return f.Create(ctx, c, obj)
}

func (f *Form) patched(ctx context.Context, c *Call, p *patch.Patch, old apis.Object, owners *patch.Fields) (apis.Object, error) {
	obj, warnings, err := p.On(f.Wire, old, owners)
	if err != nil {
		return nil, unreasoned(err)
	}
	registry.Warn(ctx, warnings...)
	if obj.GetName() == "" {
		obj.SetName(c.Name)
	}
	if obj.GetName() != c.Name {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", obj.GetName(), c.Name))
	}
	return obj, nil
}

// unreasoned is an error that patching has given no reason, as the client is
// told: no other is made up.
func unreasoned(err error) error {
	if _, known := errors.AsType[*apierrors.StatusError](err); known {
		return err
	}
	return bare(err.Error())
}

// Edit changes an object by a function of the server's own, called anew as
// long as others write at the same time. The change is seen by admission and
// validation as one by the request's user.
func (k *Kind) Edit(ctx context.Context, c *Call, make func(obj apis.Object) error) (Written, error) {
	return k.Main().modify(ctx, c, func(old apis.Object) (apis.Object, error) {
		obj := old.DeepCopyObject().(apis.Object)
		return obj, make(obj)
	}, 100)
}

// Rewrite changes an object by a function of the server's own that makes the
// object what it is to be: past its hooks, the account of owners and
// admission. It is for what a client may bring about only by an action, as a
// binding does. The function is called anew as long as others write at the
// same time; an error of its own ends that.
func (k *Kind) Rewrite(ctx context.Context, c *Call, change func(obj apis.Object) error) (Written, error) {
	f := k.Main()
	return f.retry(ctx, c, 0, func(cur current) (Written, error) {
		old, err := cur.Decode()
		if err != nil {
			return Written{}, err
		}
		obj := old.DeepCopyObject().(apis.Object)
		if err := change(obj); err != nil {
			return Written{}, err
		}
		return f.put(ctx, c, alone, obj, old, cur)
	})
}

// modify changes an object and tries as often as told where somebody else
// writes in between, or without end if the change has no opinion on what it
// replaces.
func (f *Form) modify(ctx context.Context, c *Call, make change, tries int) (Written, error) {
	return f.retry(ctx, c, tries, func(cur current) (Written, error) { return f.replace(ctx, c, cur, make) })
}

// A current is the object that stands at a key, as far as is known.
type current struct {
	*wire.Object

	fresh bool // it comes from the store, not from the cache
}

// errBehind is for what cannot be told by an object of the cache, which may
// be behind: that there is nothing to do.
var errBehind = errors.New("the cache may be behind")

// retry does something to an object. It starts from what the cache has;
// where that does not work out it tries again from what the store has. Where
// somebody else writes in between it tries as often as told, 0 for no end.
func (f *Form) retry(ctx context.Context, c *Call, tries int, do func(cur current) (Written, error)) (Written, error) {
	cur, err := f.current(ctx, c, nil)
	if err != nil {
		return Written{}, err
	}
	for try := 1; ; try++ {
		w, err := do(cur)
		var conflict *registry.Conflict
		switch {
		case err == nil:
			return w, nil
		case errors.As(err, &conflict) && conflict.Key == f.path(c.Namespace, c.Name) && try >= max(tries, 1) && tries > 0:
			return Written{}, f.modified(c.Name)
		case errors.As(err, &conflict):
			cur, err = f.current(ctx, c, conflict)
		case cur.fresh || ctx.Err() != nil || errors.Is(err, registry.ErrUnavailable):
			return Written{}, f.unserved(err) // in the last case it may have been done
		default:
			// It may be for the cache's being behind that it did not work.
			cur, err = f.current(ctx, c, &registry.Conflict{})
		}
		if err != nil {
			return Written{}, err
		}
	}
}

// current returns the object to change. After a conflict it is what the
// conflict has shown, or the store has.
func (f *Form) current(ctx context.Context, c *Call, conflict *registry.Conflict) (current, error) {
	if conflict == nil {
		if o := f.Objects.Get(registry.Key(c.Namespace, c.Name)); o != nil {
			return current{o.In(f.Main().Wire), false}, nil
		}
	} else if conflict.Have != nil && conflict.Key == f.path(c.Namespace, c.Name) {
		o, err := f.Main().Wire.Object(conflict.Have.Value, conflict.Have.Rev)
		return current{o, true}, err
	}
	o, err := f.stored(ctx, c.Namespace, c.Name)
	return current{o, true}, err
}

func (k *Kind) modified(name string) error {
	return apierrors.NewConflict(k.GroupResource(), name,
		errors.New("the object has been modified; please apply your changes to the latest version and try again"))
}

// replace puts what make makes of cur in its place, once.
func (f *Form) replace(ctx context.Context, c *Call, cur current, make change) (Written, error) {
	old, err := cur.Decode()
	if err != nil {
		return Written{}, err
	}
	made, err := make(f.Show(old.DeepCopyObject().(apis.Object)))
	if err != nil {
		return Written{}, err
	}
	obj := f.read(made)
	if err := f.replaces(obj, old, c); err != nil {
		return Written{}, err
	}
	if obj, err = f.part(obj, old, c); err != nil {
		return Written{}, err
	}
	f.Default(obj)
	dedupOwners(ctx, obj)
	if obj, err = f.owned(old, obj, c); err != nil {
		return Written{}, err
	}
	if obj, err = f.mutated(ctx, c, f.request(ctx, admit.Update, c, obj, old)); err != nil {
		return Written{}, err
	}
	prepare, validate := f.hooks(c.Sub)
	prepare(obj, old)
	commit, err := f.reserve(ctx, c, obj, old)
	if err != nil {
		return Written{}, err
	}
	if err := f.valid(ctx, c, obj, old, validate); err != nil {
		return Written{}, err
	}
	return f.put(ctx, c, commit, obj, old, cur)
}

// replaces checks that obj is meant to replace what old is.
func (f *Form) replaces(obj, old apis.Object, c *Call) error {
	if err := f.matchNamespace(obj, c.Namespace); err != nil {
		return err
	}
	switch version := obj.GetResourceVersion(); version {
	case "", "0":
		if f.Lifetime.NeedsVersion {
			// As upstream: here the name of the resource stands in place of the kind's.
			return apierrors.NewInvalid(schema.GroupKind{Group: f.Group, Kind: f.Plural}, c.Name, field.ErrorList{
				field.Invalid(field.NewPath("metadata", "resourceVersion"), 0, "must be specified for an update"),
			})
		}
	case old.GetResourceVersion():
	default:
		if _, err := strconv.ParseUint(version, 10, 64); err != nil {
			return bare(err.Error())
		}
		return f.modified(c.Name)
	}
	obj.SetResourceVersion(old.GetResourceVersion())
	return nil
}

// part limits a change to what the endpoint may change.
func (f *Form) part(obj, old apis.Object, c *Call) (apis.Object, error) {
	if obj.GetUID() == "" {
		obj.SetUID(old.GetUID())
	}
	obj.SetCreationTimestamp(old.GetCreationTimestamp())
	obj.SetDeletionTimestamp(old.GetDeletionTimestamp())
	obj.SetDeletionGracePeriodSeconds(old.GetDeletionGracePeriodSeconds())
	obj.SetGeneration(old.GetGeneration())
	obj.SetSelfLink("")
	s := f.Sub(c.Sub)
	if s == nil {
		return obj, nil
	}
	if s.Edit != nil {
		edited := old.DeepCopyObject().(apis.Object)
		s.Edit(edited, obj)
		edited.SetManagedFields(obj.GetManagedFields())
		return edited, nil
	}
	return obj, keep(obj, old, s.Keeps)
}

// hooks are those of the kind, or of a subresource that has its own.
func (k *Kind) hooks(sub string) (prepare func(obj, old apis.Object), validate func(obj, old apis.Object) field.ErrorList) {
	prepare, validate = k.Prepare, k.Validate
	if s := k.Sub(sub); s != nil {
		if s.Prepare != nil {
			prepare = s.Prepare
		}
		if s.Validate != nil {
			validate = s.Validate
		}
	}
	return prepare, validate
}

// valid checks a changed object.
func (f *Form) valid(ctx context.Context, c *Call, obj, old apis.Object, validate func(obj, old apis.Object) field.ErrorList) error {
	if f.Spec != nil && !apis.Equal(f.Spec(obj), f.Spec(old)) {
		obj.SetGeneration(old.GetGeneration() + 1)
	}
	errs := validation.ValidateObjectMetaAccessorUpdate(obj, old, field.NewPath("metadata"))
	if errs = append(errs, validate(obj, old)...); len(errs) > 0 {
		return apierrors.NewInvalid(f.GroupVersionKind.GroupKind(), c.Name, errs)
	}
	registry.Warn(ctx, f.Warn(obj, old)...)
	return f.service.Admit.Validate(ctx, f.request(ctx, admit.Update, c, obj, old))
}

// put stores obj in place of cur, unless they are the same; and removes it
// where nothing holds it any more that was asked to go.
func (f *Form) put(ctx context.Context, c *Call, commit Commit, obj, old apis.Object, cur current) (Written, error) {
	if f.released(obj) {
		return f.remove(ctx, c, obj, old, cur.Rev)
	}
	same, err := f.same(obj, cur.Raw)
	switch {
	case err != nil:
		return Written{}, err
	case same && !cur.fresh:
		return Written{}, errBehind // what the client wants undone may have been done just now
	case same && f.service.Stale != nil && !c.DryRun:
		if same, err = f.fresh(ctx, c); err != nil {
			return Written{}, err
		}
	}
	if same {
		obj.SetResourceVersion(strconv.FormatInt(cur.Rev, 10))
		return Written{Object: obj}, nil
	}
	stored, err := f.store(ctx, c, commit, obj, cur.Rev)
	if err != nil {
		return Written{}, err
	}
	return written(obj, stored, false), nil
}

// fresh reports whether what is stored is as it would be stored now.
func (f *Form) fresh(ctx context.Context, c *Call) (bool, error) {
	stale, err := f.service.Stale(ctx, f.path(c.Namespace, c.Name))
	return !stale, err
}

// released reports whether an object that was asked to go may go now.
func (k *Kind) released(obj apis.Object) bool {
	grace := obj.GetDeletionGracePeriodSeconds()
	return obj.GetDeletionTimestamp() != nil && len(obj.GetFinalizers()) == 0 && (grace == nil || *grace == 0) && !k.Lifetime.Held(obj)
}
