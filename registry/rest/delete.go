package rest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/admit"
	"github.com/knarr-dev/knarr/registry/cache"
)

// Delete asks an object to go. It goes at once where nothing holds it;
// otherwise it is marked, and goes when the last that holds it lets go. The
// options have been validated.
func (k *Kind) Delete(ctx context.Context, c *Call, opts *metav1.DeleteOptions) (Written, error) {
	return k.Main().Delete(ctx, c, opts)
}

// Delete is that of the kind, asked for in the form.
func (f *Form) Delete(ctx context.Context, c *Call, opts *metav1.DeleteOptions) (Written, error) {
	return f.retry(ctx, c, 0, func(cur current) (Written, error) { return f.dismiss(ctx, c, opts, cur) })
}

// dismiss tries once to delete or mark what stands as cur.
func (f *Form) dismiss(ctx context.Context, c *Call, opts *metav1.DeleteOptions, cur current) (Written, error) {
	old, err := cur.Decode()
	if err != nil {
		return Written{}, err
	}
	if err := f.preconditions(old, opts); err != nil {
		return Written{}, err
	}
	if !c.Admitted {
		review := f.request(ctx, admit.Delete, c, nil, old)
		if err := f.service.Admit.Mutate(ctx, review); err != nil {
			return Written{}, err
		}
		if err := f.service.Admit.Validate(ctx, review); err != nil {
			return Written{}, err
		}
	}
	obj := old.DeepCopyObject().(apis.Object)
	asked := f.mark(obj, opts)
	if !asked && !cur.fresh {
		return Written{}, errBehind
	}
	if !asked {
		return Written{Object: old}, nil // it has been asked before, and there is no hurry
	}
	if f.released(obj) {
		if f.Lifetime.Grace == nil && old.GetDeletionTimestamp() == nil {
			obj = old // it was never seen to be going
		}
		return f.remove(ctx, c, obj, old, cur.Rev)
	}
	same, err := f.same(obj, cur.Raw)
	if err == nil && same && !cur.fresh {
		err = errBehind
	}
	if err != nil || same {
		return Written{Object: old}, err
	}
	stored, err := f.store(ctx, c, alone, obj, cur.Rev)
	if err != nil {
		return Written{}, err
	}
	return written(obj, stored, false), nil
}

// preconditions checks that old is what the client wants gone.
func (k *Kind) preconditions(old apis.Object, opts *metav1.DeleteOptions) error {
	p := opts.Preconditions
	if p == nil {
		return nil
	}
	// As upstream: here the kind stands where errors else have the plural.
	gr := schema.GroupResource{Group: k.Group, Resource: k.GroupVersionKind.Kind}
	if p.UID != nil && *p.UID != old.GetUID() {
		return apierrors.NewConflict(gr, old.GetName(), fmt.Errorf(
			"the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *p.UID, old.GetUID()))
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != old.GetResourceVersion() {
		return apierrors.NewConflict(gr, old.GetName(), fmt.Errorf(
			"the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", *p.ResourceVersion, old.GetResourceVersion()))
	}
	return nil
}

// mark asks obj to go, at the time it is given. It reports false where it
// has been asked before and the new request asks for no more.
func (k *Kind) mark(obj apis.Object, opts *metav1.DeleteOptions) bool {
	now := k.service.Now()
	if obj.GetDeletionTimestamp() != nil {
		if left := obj.GetDeletionGracePeriodSeconds(); left != nil && *left > 0 {
			return hurry(obj, *left, opts.GracePeriodSeconds, now)
		}
	}
	obj.SetFinalizers(k.finalizers(obj, opts))
	if obj.GetDeletionTimestamp() != nil {
		return true
	}
	var grace int64
	if k.Lifetime.Grace != nil {
		grace = k.Lifetime.Grace(obj, opts.GracePeriodSeconds)
	}
	when := metav1.NewTime(now.Add(time.Duration(grace) * time.Second)).Rfc3339Copy()
	obj.SetDeletionTimestamp(&when)
	obj.SetDeletionGracePeriodSeconds(&grace)
	if g := obj.GetGeneration(); g > 0 {
		obj.SetGeneration(g + 1)
	}
	k.Lifetime.Leave(obj)
	return true
}

// hurry shortens the time that an object was given, and never lengthens it.
func hurry(obj apis.Object, left int64, asked *int64, now time.Time) bool {
	if asked == nil || *asked >= left {
		return false
	}
	period := max(*asked, -1)
	if period < 0 {
		period = 1
	}
	when := obj.GetDeletionTimestamp().Add(time.Duration(period-left) * time.Second)
	if when.Before(now) {
		when = now
		if period != 0 {
			period = 1 // its keeper still has the last word
		}
	}
	stamp := metav1.NewTime(when).Rfc3339Copy()
	obj.SetDeletionTimestamp(&stamp)
	obj.SetDeletionGracePeriodSeconds(&period)
	return true
}

// finalizers are those of obj with what the options say of its dependents.
func (k *Kind) finalizers(obj apis.Object, opts *metav1.DeleteOptions) []string {
	const orphan, foreground = metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents
	has := obj.GetFinalizers()
	policy := metav1.DeletePropagationBackground
	switch {
	case opts.OrphanDependents != nil && *opts.OrphanDependents: //nolint:staticcheck // deprecated, and still in use
		policy = metav1.DeletePropagationOrphan
	case opts.OrphanDependents != nil: //nolint:staticcheck // deprecated, and still in use
	case opts.PropagationPolicy != nil:
		policy = *opts.PropagationPolicy
	case slices.Contains(has, orphan):
		policy = metav1.DeletePropagationOrphan
	case slices.Contains(has, foreground):
		policy = metav1.DeletePropagationForeground
	case k.Lifetime.OrphansDefault:
		policy = metav1.DeletePropagationOrphan
	}
	want := slices.DeleteFunc(slices.Clone(has), func(f string) bool { return f == orphan || f == foreground })
	switch policy {
	case metav1.DeletePropagationOrphan:
		want = append(want, orphan)
	case metav1.DeletePropagationForeground:
		want = append(want, foreground)
	}
	if len(want) == len(has) && !slices.ContainsFunc(want, func(f string) bool { return !slices.Contains(has, f) }) {
		return has
	}
	return want
}

// remove deletes the object that stands at revision rev, and lets go of what
// was reserved for it.
func (k *Kind) remove(ctx context.Context, c *Call, obj, old apis.Object, rev int64) (Written, error) {
	op := registry.Op{Key: k.path(obj.GetNamespace(), obj.GetName()), Old: rev}
	if c.DryRun {
		return Written{Object: obj, Gone: true}, k.wouldConflict(ctx, op)
	}
	commit := Commit(alone)
	if k.Reserve != nil {
		var err error
		if commit, err = k.Reserve(ctx, nil, old); err != nil {
			return Written{}, err
		}
	}
	gone, err := commit(ctx, k.with(ctx, op))
	if err != nil {
		return Written{}, err
	}
	obj.SetResourceVersion(strconv.FormatInt(gone, 10))
	return Written{Object: obj, Gone: true}, nil
}

// deleters is how many objects of a collection are deleted at once.
const deleters = 16

// DeleteCollection deletes all objects of a selection and returns them as
// they were. One that is gone already is as good as deleted.
func (f *Form) DeleteCollection(ctx context.Context, c *Call, sel cache.Selection, list *metav1.ListOptions, opts *metav1.DeleteOptions) ([]*cache.Object, int64, error) {
	objs, meta, err := f.List(ctx, sel, list)
	if err != nil {
		return nil, 0, err
	}
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(deleters)
	for _, o := range objs {
		work.Go(func() error {
			call := *c
			call.Namespace, call.Name = o.Namespace(), o.Name()
			if _, err := f.Delete(ctx, &call, opts.DeepCopy()); err != nil && !apierrors.IsNotFound(err) {
				return err
			}
			return nil
		})
	}
	return objs, meta.Rev, work.Wait()
}
