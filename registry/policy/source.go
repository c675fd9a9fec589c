package policy

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/google/cel-go/cel"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/expression"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/match"
)

// A policy is one policy, compiled, with its bindings.
type policy struct {
	name       string
	broken     error // why nobody can tell what is meant
	criteria   *match.Criteria
	conditions match.Conditions
	params     *admissionregistrationv1.ParamKind
	ignore     bool // errors do not matter
	composed   composed
	bindings   []*binding

	validations []validation
	annotations []annotation

	mutations []mutation
	again     bool // try again where others have changed the object since
}

// A validation is an expression that must hold.
type validation struct {
	formula

	reason          metav1.StatusReason
	text            string
	message         string
	messageFormula  formula
	computesMessage bool
}

// An annotation is what the audit log is told.
type annotation struct {
	formula

	key string
}

// A mutation is an expression that says what to change.
type mutation struct {
	formula

	apply bool // or else it is a JSON patch
}

// A binding says what a policy is for.
type binding struct {
	name     string
	policy   string
	broken   error
	criteria *match.Criteria // nil for all that the policy means
	ref      *admissionregistrationv1.ParamRef
	actions  []admissionregistrationv1.ValidationAction
}

// Kinds are the kinds of a policy and its bindings.
type kinds struct {
	policies, bindings string
	policy             func(obj apis.Object) *policy
	binding            func(obj apis.Object) *binding
}

// A source knows the policies of one kind. They are compiled when they are
// first seen, and kept until they change.
type source struct {
	Config
	kinds

	names []schema.GroupResource
	kept  [2]*cache.Kind // policies and bindings
	last  atomic.Pointer[ready]

	mu       sync.Mutex
	compiled map[*cache.Object]*policy
}

// ready are the policies that are bound, as of changes of policies and bindings.
type ready struct {
	changed [2]int64
	all     []*policy
}

func newSource(cfg Config, of kinds) *source {
	s := &source{Config: cfg, kinds: of}
	for i, plural := range []string{of.policies, of.bindings} {
		gr := schema.GroupResource{Group: admissionregistrationv1.GroupName, Resource: plural}
		s.names = append(s.names, gr)
		s.kept[i] = cfg.Service.Kind(gr).Objects
	}
	return s
}

func (s *source) changed() [2]int64 { return [2]int64{s.kept[0].Changed(), s.kept[1].Changed()} }

// current are the policies that are bound, by name. What this server has
// written is heeded at once.
func (s *source) current(ctx context.Context) ([]*policy, error) {
	if err := s.World.Await(ctx, s.names...); err != nil {
		return nil, err
	}
	changed := s.changed()
	if r := s.last.Load(); r != nil && r.changed == changed {
		return r.all, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	changed = s.changed() // before the lists, which may show more
	bound, err := s.bound(ctx)
	if err != nil {
		return nil, err
	}
	list, err := s.kept[0].List(ctx, cache.Query{})
	if err != nil {
		return nil, err
	}
	compiled := map[*cache.Object]*policy{}
	var all []*policy
	for _, o := range list.Objects {
		p := s.compiled[o]
		if p == nil {
			obj, err := o.Decode()
			if err != nil {
				slog.ErrorContext(ctx, "a policy cannot be read", "obj", s.policies+"/"+o.Name(), "err", err)
				continue
			}
			p = s.policy(obj)
		}
		compiled[o] = p
		if bindings := bound[p.name]; len(bindings) > 0 {
			with := *p
			with.bindings = bindings
			all = append(all, &with)
		}
	}
	s.compiled = compiled
	s.last.Store(&ready{changed, all})
	return all, nil
}

// bound are the bindings there are, by the names of their policies.
func (s *source) bound(ctx context.Context) (map[string][]*binding, error) {
	list, err := s.kept[1].List(ctx, cache.Query{})
	if err != nil {
		return nil, err
	}
	bound := map[string][]*binding{}
	for _, o := range list.Objects {
		obj, err := o.Decode()
		if err != nil {
			slog.ErrorContext(ctx, "a binding cannot be read", "obj", s.bindings+"/"+o.Name(), "err", err)
			continue
		}
		b := s.binding(obj)
		bound[b.policy] = append(bound[b.policy], b)
	}
	return bound, nil
}

var validatingKinds = kinds{
	policies: "validatingadmissionpolicies", bindings: "validatingadmissionpolicybindings",
	policy: func(obj apis.Object) *policy {
		v, ok := obj.(*admissionregistrationv1.ValidatingAdmissionPolicy)
		if !ok {
			return &policy{}
		}
		spec := &v.Spec
		p, c, uses := newPolicy(v.Name, spec.MatchConstraints, spec.ParamKind, spec.MatchConditions, spec.Variables)
		p.ignore = ignores(spec.FailurePolicy)
		for _, given := range spec.Validations {
			val := validation{
				formula: formulated(c.Compile(given.Expression, uses, true, cel.BoolType)), reason: metav1.StatusReasonInvalid,
				text: strings.TrimSpace(given.Expression), message: strings.TrimSpace(given.Message), computesMessage: given.MessageExpression != "",
			}
			if given.Reason != nil {
				val.reason = *given.Reason
			}
			if val.computesMessage {
				val.messageFormula = formulated(c.Compile(given.MessageExpression, expression.Uses{Params: uses.Params}, true, cel.StringType))
			}
			p.validations = append(p.validations, val)
		}
		for _, a := range spec.AuditAnnotations {
			p.annotations = append(p.annotations, annotation{formulated(c.Compile(a.ValueExpression, uses, true, cel.StringType, cel.NullType)), a.Key})
		}
		return p
	},
	binding: func(obj apis.Object) *binding {
		b, ok := obj.(*admissionregistrationv1.ValidatingAdmissionPolicyBinding)
		if !ok {
			return &binding{}
		}
		return newBinding(b.Name, b.Spec.PolicyName, b.Spec.MatchResources, b.Spec.ParamRef, b.Spec.ValidationActions)
	},
}

var mutatingKinds = kinds{
	policies: "mutatingadmissionpolicies", bindings: "mutatingadmissionpolicybindings",
	policy: func(obj apis.Object) *policy {
		m, ok := obj.(*admissionregistrationv1.MutatingAdmissionPolicy)
		if !ok {
			return &policy{}
		}
		spec := &m.Spec
		p, c, uses := newPolicy(m.Name, spec.MatchConstraints, spec.ParamKind, spec.MatchConditions, spec.Variables)
		p.ignore = ignores(spec.FailurePolicy)
		p.again = spec.ReinvocationPolicy == admissionregistrationv1.IfNeededReinvocationPolicy
		uses.Patches = true
		for _, given := range spec.Mutations {
			switch {
			case given.JSONPatch != nil:
				p.mutations = append(p.mutations, mutation{formulated(c.Compile(given.JSONPatch.Expression, uses, true, expression.JSONPatch)), false})
			case given.ApplyConfiguration != nil:
				p.mutations = append(p.mutations, mutation{
					formulated(c.Compile(given.ApplyConfiguration.Expression, uses, true, expression.ApplyConfiguration)), true,
				})
			}
		}
		return p
	},
	binding: func(obj apis.Object) *binding {
		b, ok := obj.(*admissionregistrationv1.MutatingAdmissionPolicyBinding)
		if !ok {
			return &binding{}
		}
		return newBinding(b.Name, b.Spec.PolicyName, b.Spec.MatchResources, b.Spec.ParamRef, nil)
	},
}

// newPolicy is what policies of both kinds are, a compiler that knows their
// variables, and what expressions may use.
func newPolicy(name string, about *admissionregistrationv1.MatchResources, params *admissionregistrationv1.ParamKind,
	conditions []admissionregistrationv1.MatchCondition, variables []admissionregistrationv1.Variable,
) (*policy, *expression.Compiler, expression.Uses) {
	uses := expression.Uses{Params: params != nil, Authorizer: true}
	c := expression.NewCompiler()
	p := &policy{
		name: name, params: params, conditions: match.NewConditions(conditions, uses),
		composed: composed{c.Variables, map[string]formula{}},
	}
	p.criteria, p.broken = match.New(about)
	for _, v := range variables {
		p.composed.formulas[v.Name] = formulated(c.Declare(v.Name, v.Expression, uses, true))
	}
	return p, c, uses
}

func newBinding(name, policy string, about *admissionregistrationv1.MatchResources, ref *admissionregistrationv1.ParamRef,
	actions []admissionregistrationv1.ValidationAction,
) *binding {
	b := &binding{name: name, policy: policy, ref: ref, actions: actions}
	if about != nil {
		b.criteria, b.broken = match.New(about)
	}
	return b
}
