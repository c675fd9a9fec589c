// Package policy holds writes to the policies of the cluster, whose
// expressions refuse a write or change its object. Which requests are meant
// is for package match to say; what a policy may look like is in
// apis/admissionregistration.
package policy

import (
	"context"
	"errors"
	"fmt"
	"maps"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis/expression"
	"github.com/knarr-dev/knarr/registry/admit"
	"github.com/knarr-dev/knarr/registry/match"
	"github.com/knarr-dev/knarr/registry/rest"
	"github.com/knarr-dev/knarr/registry/world"
)

// A Config is what policies are evaluated with.
type Config struct {
	Service *rest.Service
	World   *world.World
	May     match.Allower // what expressions ask about others
}

// Mutating is the plugin of policies that change objects.
func Mutating(cfg Config) admit.Plugin {
	m := &mutating{judge{cfg, newSource(cfg, mutatingKinds)}}
	return admit.Plugin{Name: "MutatingAdmissionPolicy", Mutate: m.mutate}
}

// Validating is the plugin of policies that refuse requests.
func Validating(cfg Config) admit.Plugin {
	v := &validating{judge{cfg, newSource(cfg, validatingKinds)}}
	return admit.Plugin{Name: "ValidatingAdmissionPolicy", Validate: v.validate}
}

// A judge finds the policies of one kind that a request is to be held to.
type judge struct {
	Config

	source *source
}

// A try is a policy to be tried on a request: as a binding has it, with one
// of the binding's parameters.
type try struct {
	policy  *policy
	binding *binding
	as      *match.As
	param   map[string]any // nil where there is none
}

// A fault is an error in trying a policy. Whether it matters is for the
// policy to say.
type fault struct {
	policy  *policy
	binding *binding // nil where it is for none of them
	err     error
	reason  metav1.StatusReason
}

// tries are the policies to try on a request, in order, and what could not be
// found out about others.
func (j *judge) tries(ctx context.Context, r *admit.Request) (all []try, faults []fault, err error) {
	policies, err := j.source.current(ctx)
	if err != nil || len(policies) == 0 || match.Exempt(r) || match.Own(ctx) {
		return nil, nil, err
	}
	for _, p := range policies {
		as, err := j.meant(ctx, p, r)
		if err != nil {
			faults = append(faults, fault{p, nil, fmt.Errorf("failed to configure policy: %w", err), ""})
		}
		if as == nil {
			continue
		}
		for _, b := range p.bindings {
			params, err := j.bound(ctx, p, b, r)
			if err != nil {
				faults = append(faults, fault{p, b, fmt.Errorf("failed to configure binding: %w", err), ""})
			}
			for _, param := range params {
				all = append(all, try{p, b, as, param})
			}
		}
	}
	return all, faults, nil
}

// meant tells as what a policy means a request, nil where it does not.
func (j *judge) meant(ctx context.Context, p *policy, r *admit.Request) (*match.As, error) {
	if p.broken != nil {
		return nil, p.broken
	}
	as, err := p.criteria.Match(ctx, j.Service, j.World, r)
	if err != nil || as == nil {
		return nil, err
	}
	if p.params != nil && j.paramForm(p.params) == nil {
		return nil, fmt.Errorf("failed to find resource referenced by paramKind: '%v'", p.paramGVK())
	}
	return as, nil
}

// bound are the parameters with which a binding has a policy tried on a
// request, none where it does not mean it. One that is nil is none.
func (j *judge) bound(ctx context.Context, p *policy, b *binding, r *admit.Request) ([]map[string]any, error) {
	if b.broken != nil {
		return nil, b.broken
	}
	if b.criteria != nil {
		as, err := b.criteria.Match(ctx, j.Service, j.World, r)
		if err != nil || as == nil {
			return nil, err
		}
	}
	return j.paramsOf(ctx, p, b, r)
}

// holds reports whether the conditions of a policy hold of what it would see.
func (t *try) holds(ctx context.Context, vars match.Vars) (bool, error) {
	if len(t.policy.conditions) == 0 {
		return true, nil
	}
	ok, err := t.policy.conditions.Hold(ctx, t.with(vars))
	if err != nil && t.policy.ignore {
		return false, nil // such a policy is passed over where it cannot be told
	}
	return ok, err
}

// with are variables and the parameter.
func (t *try) with(vars match.Vars) match.Vars {
	more := maps.Clone(vars)
	more[expression.Params] = nil
	if t.param != nil {
		more[expression.Params] = t.param
	}
	return more
}

// namespace is the namespace that a request is in as expressions see it, nil
// where it is in none.
func (j *judge) namespace(ctx context.Context, r *admit.Request) (any, error) {
	if r.Namespace == "" || r.Kind.Group == "" && r.Kind.Plural == "namespaces" {
		return nil, nil
	}
	obj, err := j.World.Lookup(ctx, schema.GroupResource{Resource: "namespaces"}, "", r.Namespace)
	if err != nil {
		return nil, err
	}
	ns, ok := obj.(*corev1.Namespace)
	if !ok {
		return nil, errors.New("a namespace that is none")
	}
	shown := &corev1.Namespace{ObjectMeta: ns.ObjectMeta, Spec: ns.Spec, Status: ns.Status}
	shown.ManagedFields, shown.OwnerReferences = nil, nil
	return runtime.DefaultUnstructuredConverter.ToUnstructured(shown)
}

// ignores reports whether errors in a policy do not matter.
func ignores(p *admissionregistrationv1.FailurePolicyType) bool {
	return p != nil && *p == admissionregistrationv1.Ignore
}
