package admissionregistration

import (
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/expression"
)

var mutatingAdmissionPolicies = apis.Define(apis.Resource[*admissionregistrationv1.MutatingAdmissionPolicy]{
	Plural:     "mutatingadmissionpolicies",
	Categories: []string{"api-extensions"},
	Scope:      apis.Cluster,
	Default: func(p *admissionregistrationv1.MutatingAdmissionPolicy) {
		if p.Spec.FailurePolicy == nil {
			p.Spec.FailurePolicy = new(admissionregistrationv1.Fail)
		}
		defaultMatch(p.Spec.MatchConstraints)
	},
	Spec:     func(p *admissionregistrationv1.MutatingAdmissionPolicy) any { return p.Spec },
	Validate: validateMutatingPolicy,
	Columns: []apis.Column[*admissionregistrationv1.MutatingAdmissionPolicy]{
		{Name: "Mutations", Type: "integer", Cell: func(p *admissionregistrationv1.MutatingAdmissionPolicy, _ time.Time) any {
			return int64(len(p.Spec.Mutations))
		}},
		paramKindColumn(func(p *admissionregistrationv1.MutatingAdmissionPolicy) *admissionregistrationv1.ParamKind {
			return p.Spec.ParamKind
		}),
	},
	Lifetime: apis.Lifetime[*admissionregistrationv1.MutatingAdmissionPolicy]{NeedsVersion: true},
})

func validateMutatingPolicy(p, old *admissionregistrationv1.MutatingAdmissionPolicy) field.ErrorList {
	at := check.New().Dot("spec")
	spec := &p.Spec
	conditions, applied, same := check.Set[string]{}, check.Set[string]{}, false
	if old != nil {
		for _, c := range old.Spec.MatchConditions {
			conditions[c.Expression] = true
		}
		for _, m := range old.Spec.Mutations {
			if m.ApplyConfiguration != nil {
				applied[m.ApplyConfiguration.Expression] = true
			}
		}
		same = equality.Semantic.DeepEqual(spec.ParamKind, old.Spec.ParamKind) &&
			equality.Semantic.DeepEqual(spec.MatchConditions, old.Spec.MatchConditions)
	}
	requiredFailurePolicy(at.Dot("failurePolicy"), spec.FailurePolicy)
	paramKind(at.Dot("paramKind"), spec.ParamKind)
	constraints(at.Dot("matchConstraints"), spec.MatchConstraints)
	onlyChanging(at.Dot("matchConstraints"), spec.MatchConstraints)
	if !same {
		matchConditions(at.Dot("matchConditions"), spec.MatchConditions, spec.ParamKind != nil, conditions)
	}
	c := expression.NewCompiler()
	uses := expression.Uses{Params: spec.ParamKind != nil, Authorizer: true}
	variables(at.Dot("variables"), c, spec.Variables, uses, nil)
	uses.Patches = true
	if len(spec.Mutations) == 0 {
		at.Dot("mutations").Required("mutations must contain at least one item")
	}
	for i := range spec.Mutations {
		mutation(at.Dot("mutations").Index(i), &spec.Mutations[i], c.Compile, uses, applied)
	}
	check.Choice(at.Dot("reinvocationPolicy"), spec.ReinvocationPolicy,
		admissionregistrationv1.NeverReinvocationPolicy, admissionregistrationv1.IfNeededReinvocationPolicy)
	return at.Errors()
}

func mutation(at check.At, m *admissionregistrationv1.Mutation, with compile, uses expression.Uses, stored check.Set[string]) {
	if !check.Choice(at.Dot("patchType"), m.PatchType, admissionregistrationv1.PatchTypeApplyConfiguration, admissionregistrationv1.PatchTypeJSONPatch) {
		return
	}
	var patch, apply *string
	if m.JSONPatch != nil {
		patch = &m.JSONPatch.Expression
	}
	if m.ApplyConfiguration != nil {
		apply = &m.ApplyConfiguration.Expression
	}
	name, other, text, odd, t := "jsonPatch", "applyConfiguration", patch, apply, expression.JSONPatch
	if m.PatchType == admissionregistrationv1.PatchTypeApplyConfiguration {
		name, other, text, odd, t = other, name, apply, patch, expression.ApplyConfiguration
	}
	switch at := at.Dot(name); {
	case text == nil:
		at.Required("must be specified when patchType is " + string(m.PatchType))
	case strings.TrimSpace(*text) == "":
		at.Dot("expression").Required("")
	default:
		with.check(at.Dot("expression"), strings.TrimSpace(*text), uses, stored[*text], t)
	}
	if odd != nil {
		at.Dot(other).Invalid("{"+other+"}", "must not be specified when patchType is "+string(m.PatchType))
	}
}

var mutatingAdmissionPolicyBindings = apis.Define(apis.Resource[*admissionregistrationv1.MutatingAdmissionPolicyBinding]{
	Plural:     "mutatingadmissionpolicybindings",
	Categories: []string{"api-extensions"},
	Scope:      apis.Cluster,
	Default: func(b *admissionregistrationv1.MutatingAdmissionPolicyBinding) {
		defaultMatch(b.Spec.MatchResources)
	},
	Spec: func(b *admissionregistrationv1.MutatingAdmissionPolicyBinding) any { return b.Spec },
	Validate: func(b, _ *admissionregistrationv1.MutatingAdmissionPolicyBinding) field.ErrorList {
		at := check.New().Dot("spec")
		policyName(at.Dot("policyName"), b.Spec.PolicyName)
		paramRef(at.Dot("paramRef"), b.Spec.ParamRef)
		matched(at.Dot("matchResources"), b.Spec.MatchResources)
		onlyChanging(at.Dot("matchResources"), b.Spec.MatchResources)
		return at.Errors()
	},
	Columns: []apis.Column[*admissionregistrationv1.MutatingAdmissionPolicyBinding]{
		{Name: "PolicyName", Cell: func(b *admissionregistrationv1.MutatingAdmissionPolicyBinding, _ time.Time) any {
			return b.Spec.PolicyName
		}},
		paramRefColumn(func(b *admissionregistrationv1.MutatingAdmissionPolicyBinding) *admissionregistrationv1.ParamRef {
			return b.Spec.ParamRef
		}),
	},
	Lifetime: apis.Lifetime[*admissionregistrationv1.MutatingAdmissionPolicyBinding]{NeedsVersion: true},
})
