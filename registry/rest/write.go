package rest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/admit"
	"github.com/knarr-dev/knarr/registry/wire"
)

// A Call is what all writes have in common.
type Call struct {
	Namespace string
	Name      string // "" where the object names itself
	Sub       string
	DryRun    bool
	Manager   string         // in whose name fields are owned
	Applied   bool           // by an apply patch, which has done the account of owners
	Admitted  bool           // as a part of something that admission has seen
	Options   runtime.Object // the request's, for admission
}

// Written is what a write has come to.
type Written struct {
	Object  apis.Object  // as stored, in its stored form, with its resourceVersion
	Stored  *wire.Object // the same as bytes, nil where nothing was stored
	Created bool
	Gone    bool // the write has removed it
}

// request is what admission is to see of a write.
func (f *Form) request(ctx context.Context, op admit.Operation, c *Call, obj, old apis.Object) *admit.Request {
	gvk := f.Wire.GroupVersionKind
	r := &admit.Request{
		Operation: op, Kind: f.Definition, Sub: c.Sub, Namespace: c.Namespace, Name: c.Name,
		Object: obj, Old: old, Options: c.Options, DryRun: c.DryRun, User: registry.RequestOf(ctx).User,
		Resource: gvk.GroupVersion().WithResource(f.Plural), Sent: gvk,
	}
	if c.Sub == "scale" {
		r.Sent = ScaleKind.GroupVersionKind
	}
	return r
}

// mutated is the request's object as admission has made it. Where that is
// another one, what a client may not write others may not either.
func (f *Form) mutated(ctx context.Context, c *Call, r *admit.Request) (apis.Object, error) {
	obj := r.Object
	if err := f.service.Admit.Mutate(ctx, r); err != nil || r.Object == obj {
		return obj, err
	}
	made := r.Object
	made.SetManagedFields(obj.GetManagedFields())
	if err := f.matchNamespace(made, c.Namespace); err != nil {
		return nil, err
	}
	dedupOwners(ctx, made)
	if r.Old == nil {
		reset(made)
		return made, nil
	}
	made.SetResourceVersion(obj.GetResourceVersion())
	return f.part(made, r.Old, c)
}

// matchNamespace makes obj be where the request is.
func (k *Kind) matchNamespace(obj apis.Object, namespace string) error {
	switch obj.GetNamespace() {
	case namespace:
	case "":
		obj.SetNamespace(namespace)
	default:
		if k.Scope == apis.Cluster {
			obj.SetNamespace("")
			return nil
		}
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return nil
}

// unversioned clears what is not stored with an object.
func unversioned(obj apis.Object) {
	obj.SetResourceVersion("")
	obj.SetSelfLink("")
}

// maxNames is how many names are tried for an object that wants one made.
const maxNames = 8

// Create stores a new object. Its defaults need not be set.
func (f *Form) Create(ctx context.Context, c *Call, in apis.Object) (Written, error) {
	obj := f.read(in)
	if err := f.matchNamespace(obj, c.Namespace); err != nil {
		return Written{}, err
	}
	v := obj.GetResourceVersion()
	versioned := v != "" && v != "0"
	if f.Custom != nil && f.Custom.Ending {
		return Written{}, apierrors.NewForbidden(f.GroupResource(), obj.GetName(), errors.New("create not allowed while custom resource definition is terminating"))
	}
	reset(obj)
	f.Default(obj)
	dedupOwners(ctx, obj)
	obj, err := f.owned(nil, obj, c)
	if err != nil {
		return Written{}, err
	}
	if obj, err = f.mutated(ctx, c, f.request(ctx, admit.Create, c, obj, nil)); err != nil {
		return Written{}, err
	}
	f.begin(obj)
	for try := 1; ; try++ {
		named := obj
		if obj.GetName() == "" && obj.GetGenerateName() != "" {
			named = obj.DeepCopyObject().(apis.Object)
			named.SetName(generated(obj.GetGenerateName(), f.service.NameTail()))
		}
		w, err := f.insert(ctx, c, named, versioned)
		if !apierrors.IsAlreadyExists(err) || named == obj || try == maxNames {
			return w, nameTaken(err, obj)
		}
	}
}

// nameTaken makes the error of a name that was made and taken say so.
func nameTaken(err error, obj apis.Object) error {
	var status *apierrors.StatusError
	if obj.GetName() != "" || !apierrors.IsAlreadyExists(err) || !errors.As(err, &status) {
		return err
	}
	status.ErrStatus.Details.RetryAfterSeconds = 1
	status.ErrStatus.Message += ", the server was not able to generate a unique name for the object"
	return status
}

// generated is a name made from a prefix, which is cut so that the name fits.
func generated(prefix, tail string) string {
	const most = 63 - 5
	if len(prefix) > most {
		prefix = prefix[:most]
	}
	return prefix + tail
}

// owned notes in obj whose its fields are. Both objects are as stored; old is
// nil on create.
func (f *Form) owned(old, obj apis.Object, c *Call) (apis.Object, error) {
	o := f.owners[c.Sub]
	switch {
	case o == nil || c.Applied:
		return obj, nil
	case old == nil:
		return o.Create(obj, c.Manager)
	}
	return o.Update(old, obj, c.Manager)
}

// bare is an error that upstream gives no reason: its clients go by the text
// alone.
func bare(text string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: text,
	}}
}

// reset clears the metadata that a client may not set.
func reset(obj apis.Object) {
	obj.SetUID("")
	obj.SetCreationTimestamp(metav1.Time{})
	obj.SetDeletionTimestamp(nil)
	obj.SetDeletionGracePeriodSeconds(nil)
	unversioned(obj)
}

// begin gives a new object what the server says of it.
func (k *Kind) begin(obj apis.Object) {
	obj.SetUID(k.service.NewUID())
	obj.SetCreationTimestamp(metav1.NewTime(k.service.Now()).Rfc3339Copy())
	obj.SetGeneration(0)
	if k.Spec != nil {
		obj.SetGeneration(1)
	}
	k.Prepare(obj, nil)
}

// insert stores a new object, which the client may have given a
// resourceVersion.
func (f *Form) insert(ctx context.Context, c *Call, obj apis.Object, versioned bool) (Written, error) {
	call := *c
	call.Name = obj.GetName()
	for {
		made := obj
		if f.Reserve != nil {
			made = obj.DeepCopyObject().(apis.Object) // what is found for it may not do
		}
		stored, err := f.try(ctx, &call, made, versioned)
		var conflict *registry.Conflict
		switch {
		case err == nil:
			return written(made, stored, true), nil
		case !errors.As(err, &conflict):
			return Written{}, f.unserved(err)
		case conflict.Key == f.path(obj.GetNamespace(), obj.GetName()):
			return Written{}, f.exists(obj, conflict.Have)
		}
		// Somebody was faster at what Reserve had found.
	}
}

// written is what the writing of obj has come to, which stands as stored; nil
// on a dry run.
func written(obj apis.Object, stored *wire.Object, created bool) Written {
	if stored != nil {
		obj.SetResourceVersion(strconv.FormatInt(stored.Rev, 10))
	}
	return Written{Object: obj, Stored: stored, Created: created}
}

// try finds what a new object needs, validates it and stores it.
func (f *Form) try(ctx context.Context, c *Call, obj apis.Object, versioned bool) (*wire.Object, error) {
	commit, err := f.reserve(ctx, c, obj, nil)
	if err != nil {
		return nil, err
	}
	errs := validation.ValidateObjectMetaAccessor(obj, f.Scope == apis.Namespaced, f.Name, field.NewPath("metadata"))
	if errs = append(errs, f.Validate(obj, nil)...); len(errs) > 0 {
		return nil, apierrors.NewInvalid(f.GroupVersionKind.GroupKind(), obj.GetName(), errs)
	}
	registry.Warn(ctx, f.Warn(obj, nil)...)
	if err := f.service.Admit.Validate(ctx, f.request(ctx, admit.Create, c, obj, nil)); err != nil {
		return nil, err
	}
	if versioned && !c.DryRun {
		// As upstream: its clients go by this text alone, and it is the store that says it.
		return nil, bare("resourceVersion should not be set on objects to be created")
	}
	return f.store(ctx, c, commit, obj, 0)
}

// exists is the error of creating what is there.
func (k *Kind) exists(obj apis.Object, have *registry.Record) error {
	err := apierrors.NewAlreadyExists(k.GroupResource(), obj.GetName())
	if have == nil {
		return err
	}
	if o, oerr := k.Main().Wire.Object(have.Value, have.Rev); oerr == nil {
		if old, oerr := o.Decode(); oerr == nil && old.GetDeletionTimestamp() != nil {
			err.ErrStatus.Message = "object is being deleted: " + err.ErrStatus.Message
		}
	}
	return err
}

// reserve finds what obj needs besides its key. A subresource needs nothing.
func (k *Kind) reserve(ctx context.Context, c *Call, obj, old apis.Object) (Commit, error) {
	if k.Reserve == nil || c.Sub != "" {
		return alone, nil
	}
	return k.Reserve(ctx, obj, old)
}

// alone is the Commit of an object that needs nothing.
func alone(_ context.Context, write func(...registry.Op) (int64, error)) (int64, error) {
	return write()
}

// store stores obj in place of revision rev and returns it as it is stored;
// nil on a dry run.
func (k *Kind) store(ctx context.Context, c *Call, commit Commit, obj apis.Object, rev int64) (*wire.Object, error) {
	value, err := k.encode(obj)
	if err != nil {
		return nil, err
	}
	op := registry.Op{Key: k.path(obj.GetNamespace(), obj.GetName()), Old: rev, Value: value, TTL: k.Lifetime.TTL}
	if c.DryRun {
		return nil, k.wouldConflict(ctx, op)
	}
	forget := k.Objects.Await(registry.Key(obj.GetNamespace(), obj.GetName()), value, obj)
	now, err := commit(ctx, k.with(ctx, op))
	if err != nil {
		forget()
		return nil, err
	}
	return k.Main().Wire.Object(value, now)
}

// with writes op together with others.
func (k *Kind) with(ctx context.Context, op registry.Op) func(...registry.Op) (int64, error) {
	return func(ops ...registry.Op) (int64, error) {
		return k.service.Store.Commit(ctx, append([]registry.Op{op}, ops...)...)
	}
}

// wouldConflict checks what a commit would check, for a dry run.
func (k *Kind) wouldConflict(ctx context.Context, op registry.Op) error {
	have, err := k.service.Store.Get(ctx, op.Key)
	switch {
	case err != nil && !errors.Is(err, registry.ErrNotFound):
		return err
	case have.Rev == op.Old:
		return nil
	case have.Rev == 0:
		return &registry.Conflict{Key: op.Key}
	}
	return &registry.Conflict{Key: op.Key, Have: &have}
}

// encode makes the bytes to store of obj, which keeps its resourceVersion.
func (k *Kind) encode(obj apis.Object) ([]byte, error) {
	version := obj.GetResourceVersion()
	obj.SetResourceVersion("")
	defer obj.SetResourceVersion(version)
	return k.Main().Wire.Encode(obj)
}

// same reports whether obj would be stored as what is stored already.
func (k *Kind) same(obj apis.Object, raw []byte) (bool, error) {
	value, err := k.encode(obj)
	if err != nil {
		return false, err
	}
	o, err := k.Main().Wire.Object(value, 0)
	return err == nil && bytes.Equal(o.Raw, raw), err
}

// dedupOwners removes owner references that stand twice.
func dedupOwners(ctx context.Context, obj apis.Object) {
	refs := obj.GetOwnerReferences()
	var once []metav1.OwnerReference
	for _, r := range refs {
		if slices.ContainsFunc(once, func(o metav1.OwnerReference) bool { return sameOwner(o, r) }) {
			registry.Warn(ctx, fmt.Sprintf(".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: %s", r.UID))
			continue
		}
		once = append(once, r)
	}
	if len(once) < len(refs) {
		obj.SetOwnerReferences(once)
	}
}

func sameOwner(a, b metav1.OwnerReference) bool {
	same := func(a, b *bool) bool { return a == b || a != nil && b != nil && *a == *b }
	return a.UID == b.UID && a.Name == b.Name && a.Kind == b.Kind && a.APIVersion == b.APIVersion &&
		same(a.Controller, b.Controller) && same(a.BlockOwnerDeletion, b.BlockOwnerDeletion)
}
