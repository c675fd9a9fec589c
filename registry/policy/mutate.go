package policy

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	celconfig "k8s.io/apiserver/pkg/apis/cel"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/expression"
	"github.com/knarr-dev/knarr/registry/admit"
)

type mutating struct{ judge }

// tried is what is remembered of a request from one round to the next, by
// policy, binding and parameter.
type tried struct {
	since map[string]bool // tried, and to be tried again if something changes
	due   map[string]bool // to be tried again
	last  apis.Object     // as the policies have left it
}

// changed makes those be tried again that have not seen what has changed.
func (t *tried) changed() {
	for key := range t.since {
		t.due[key] = true
	}
	clear(t.since)
}

// key tells one try from another.
func (t *try) key() string {
	key := t.policy.name + " " + t.binding.name
	if meta, ok := t.param["metadata"].(map[string]any); ok {
		key += fmt.Sprintf(" %v %v", meta["namespace"], meta["name"])
	}
	return key
}

// mutate has all policies that are meant change the object, one after the
// other. In a second round those are tried again that want it, if they have
// not seen all that has changed.
func (m *mutating) mutate(ctx context.Context, _ admit.World, r *admit.Request) error {
	if r.Operation == admit.Delete {
		return nil
	}
	tries, faults, err := m.tries(ctx, r)
	if err != nil || len(tries)+len(faults) == 0 {
		return err
	}
	before, known := r.Kept["policies"].(*tried)
	if !known {
		before = &tried{since: map[string]bool{}, due: map[string]bool{}}
	}
	if r.Round > 0 && known && !apis.Equal(before.last, r.Object) {
		before.changed()
	}
	for i := range tries {
		t := &tries[i]
		found, err := m.one(ctx, t, r, before)
		if err != nil {
			return err
		}
		for _, err := range found {
			faults = append(faults, fault{t.policy, t.binding, err, metav1.StatusReasonInvalid})
		}
	}
	if r.Object != nil {
		before.last, _ = r.Object.DeepCopyObject().(apis.Object)
	}
	if r.Kept == nil {
		r.Kept = map[string]any{}
	}
	r.Kept["policies"] = before
	return refused(r, faults)
}

// refused is the error of the faults that matter, nil where none does.
func refused(r *admit.Request, faults []fault) error {
	var all *apierrors.StatusError
	for _, f := range faults {
		if f.policy.ignore {
			continue
		}
		text := fmt.Sprintf("policy %q denied request: %v", f.policy.name, f.err)
		if f.binding != nil {
			text = fmt.Sprintf("policy '%s' with binding '%s' denied request: %v", f.policy.name, f.binding.name, f.err)
		}
		if all == nil {
			all = admit.Forbidden(r, errors.New("admission request denied by policy"))
			all.ErrStatus.Message = text
			if f.reason != "" {
				all.ErrStatus.Reason = f.reason // As upstream: the code stays that of what is forbidden.
			}
		}
		all.ErrStatus.Details.Causes = append(all.ErrStatus.Details.Causes, metav1.StatusCause{Message: text})
	}
	if all == nil {
		return nil
	}
	return all
}

// one has one policy change the object, mutation by mutation. What cannot be
// done is for the policy to say whether it matters, but for an error.
func (m *mutating) one(ctx context.Context, t *try, r *admit.Request, before *tried) (faults []error, err error) {
	vars, err := m.vars(t, r)
	if err != nil {
		return nil, err
	}
	switch ok, err := t.holds(ctx, vars); {
	case err != nil:
		return []error{err}, nil //nolint:nilerr // it is for the policy to say
	case !ok, r.Round > 0 && !before.due[t.key()]:
		return nil, nil
	}
	namespace, err := m.namespace(ctx, r)
	if err != nil {
		return nil, err
	}
	was := r.Object
	for i := range t.policy.mutations {
		if r.Object == nil {
			break
		}
		err := m.change(ctx, t, &t.policy.mutations[i], r, namespace)
		if _, final := errors.AsType[*apierrors.StatusError](err); final {
			return nil, err
		}
		if err != nil {
			faults = append(faults, err)
		}
	}
	if r.Object != was && !apis.Equal(r.Object, was) {
		before.changed()
		r.Again = true
	}
	if t.policy.again {
		before.since[t.key()] = true
	}
	return faults, nil
}

// change does what one mutation wants done.
func (m *mutating) change(ctx context.Context, t *try, mut *mutation, r *admit.Request, namespace any) error {
	seen, err := t.as.See(m.Service, r)
	if err != nil {
		return err
	}
	vars, err := seen.Vars(m.May)
	if err != nil {
		return err
	}
	vars[expression.NamespaceObject] = namespace
	vars = t.with(vars)
	budget := int64(celconfig.RuntimeCELCostBudget)
	t.policy.composed.in(ctx, vars, &budget)
	val, err := mut.evaluate(ctx, vars, &budget)
	if err != nil {
		return err
	}
	content, ok := vars[expression.Object].(map[string]any)
	if !ok {
		return nil
	}
	var text []byte
	if mut.apply {
		text, err = m.applied(seen, r, content, val)
	} else {
		text, err = patched(content, val)
	}
	if err != nil || text == nil {
		return err
	}
	if err := seen.Take(text); err != nil {
		return apierrors.NewInternalError(err)
	}
	return nil
}
