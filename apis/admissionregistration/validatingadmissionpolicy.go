package admissionregistration

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/cel-go/cel"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	v1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/util/jsonpath"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/expression"
	"github.com/knarr-dev/knarr/apis/meta"
)

var validatingAdmissionPolicies = apis.Define(apis.Resource[*admissionregistrationv1.ValidatingAdmissionPolicy]{
	Plural:     "validatingadmissionpolicies",
	Categories: []string{"api-extensions"},
	Scope:      apis.Cluster,
	Default: func(p *admissionregistrationv1.ValidatingAdmissionPolicy) {
		if p.Spec.FailurePolicy == nil {
			p.Spec.FailurePolicy = new(admissionregistrationv1.Fail)
		}
		defaultMatch(p.Spec.MatchConstraints)
	},
	Prepare:  meta.KeepStatus[*admissionregistrationv1.ValidatingAdmissionPolicy],
	Spec:     func(p *admissionregistrationv1.ValidatingAdmissionPolicy) any { return p.Spec },
	Validate: validateValidatingPolicy,
	Subs: []apis.Sub[*admissionregistrationv1.ValidatingAdmissionPolicy]{
		meta.Status(validatePolicyStatus, meta.StatusMeta()...),
	},
	Columns: []apis.Column[*admissionregistrationv1.ValidatingAdmissionPolicy]{
		{Name: "Validations", Type: "integer", Cell: func(p *admissionregistrationv1.ValidatingAdmissionPolicy, _ time.Time) any {
			return int64(len(p.Spec.Validations))
		}},
		paramKindColumn(func(p *admissionregistrationv1.ValidatingAdmissionPolicy) *admissionregistrationv1.ParamKind {
			return p.Spec.ParamKind
		}),
	},
	Lifetime: apis.Lifetime[*admissionregistrationv1.ValidatingAdmissionPolicy]{NeedsVersion: true},
})

// storedExpressions are what a policy had before.
type storedExpressions struct {
	conditions, validations, messages, annotations check.Set[string]

	same bool // the conditions are what they were
}

func validatingStored(p, old *admissionregistrationv1.ValidatingAdmissionPolicy) storedExpressions {
	s := storedExpressions{check.Set[string]{}, check.Set[string]{}, check.Set[string]{}, check.Set[string]{}, false}
	if old == nil {
		return s
	}
	for _, c := range old.Spec.MatchConditions {
		s.conditions[c.Expression] = true
	}
	for _, v := range old.Spec.Validations {
		s.validations[v.Expression], s.messages[v.MessageExpression] = true, true
	}
	for _, a := range old.Spec.AuditAnnotations {
		s.annotations[a.ValueExpression] = true
	}
	s.same = equality.Semantic.DeepEqual(p.Spec.ParamKind, old.Spec.ParamKind) &&
		equality.Semantic.DeepEqual(p.Spec.MatchConditions, old.Spec.MatchConditions)
	return s
}

func validateValidatingPolicy(p, old *admissionregistrationv1.ValidatingAdmissionPolicy) field.ErrorList {
	at := check.New().Dot("spec")
	spec, stored := &p.Spec, validatingStored(p, old)
	requiredFailurePolicy(at.Dot("failurePolicy"), spec.FailurePolicy)
	paramKind(at.Dot("paramKind"), spec.ParamKind)
	constraints(at.Dot("matchConstraints"), spec.MatchConstraints)
	if !stored.same {
		matchConditions(at.Dot("matchConditions"), spec.MatchConditions, spec.ParamKind != nil, stored.conditions)
	}
	with := compile(expression.Compile)
	uses := expression.Uses{Params: spec.ParamKind != nil, Authorizer: true}
	if len(spec.Variables) > 0 {
		c := expression.NewCompiler()
		variables(at.Dot("variables"), c, spec.Variables, uses, stored.validations)
		with = c.Compile
	}
	if len(spec.Validations) == 0 && len(spec.AuditAnnotations) == 0 {
		const detail = "validations or auditAnnotations must contain at least one item"
		at.Dot("validations").Required(detail)
		at.Dot("auditAnnotations").Required(detail)
		return at.Errors()
	}
	for i := range spec.Validations {
		validation(at.Dot("validations").Index(i), &spec.Validations[i], with, uses, &stored)
	}
	auditAnnotations(at.Dot("auditAnnotations"), p, with, uses, stored.annotations)
	return at.Errors()
}

func validation(at check.At, v *admissionregistrationv1.Validation, with compile, uses expression.Uses, stored *storedExpressions) {
	if strings.TrimSpace(v.Expression) == "" {
		at.Dot("expression").Required("expression is not specified")
	} else {
		with.check(at.Dot("expression"), v.Expression, uses, stored.validations[v.Expression], cel.BoolType)
	}
	if message := at.Dot("messageExpression"); v.MessageExpression != "" {
		if strings.TrimSpace(v.MessageExpression) == "" {
			message.Invalid(v.MessageExpression, "must be non-empty if specified")
		} else {
			with.check(message, v.MessageExpression, expression.Uses{Params: uses.Params}, stored.messages[v.MessageExpression], cel.StringType)
		}
	}
	text := strings.TrimSpace(v.Message)
	if v.Message != "" && text == "" {
		at.Dot("message").Invalid(v.Message, "must be non-empty if specified")
	} else if strings.ContainsAny(text, "\n\r") {
		at.Dot("message").Invalid(v.Message, "must not contain line breaks")
	}
	if v.Reason != nil {
		check.OneOf(at.Dot("reason"), *v.Reason, metav1.StatusReasonForbidden, metav1.StatusReasonInvalid,
			metav1.StatusReasonRequestEntityTooLarge, metav1.StatusReasonUnauthorized)
	}
}

// Limits of audit annotations, so that the log stays readable.
const (
	maxAnnotations     = 20
	maxValueExpression = 5 << 10
)

func auditAnnotations(at check.At, p *admissionregistrationv1.ValidatingAdmissionPolicy, with compile, uses expression.Uses, stored check.Set[string]) {
	all := p.Spec.AuditAnnotations
	if len(all) > maxAnnotations {
		at.Invalid(all, fmt.Sprintf("must not have more than %d auditAnnotations", maxAnnotations))
	}
	keys := check.Set[string]{}
	for i, a := range all {
		key, value := at.Index(i).Dot("key"), at.Index(i).Dot("valueExpression")
		if p.Name == "" {
			key.Invalid(a.Key, "requires metadata.name be non-empty")
		} else {
			key.Qualified(p.Name + "/" + a.Key)
		}
		switch text := strings.TrimSpace(a.ValueExpression); {
		case text == "":
			value.Required("valueExpression is not specified")
		case len(text) > maxValueExpression:
			value.Required(fmt.Sprintf("must not exceed %d bytes in length", maxValueExpression))
		default:
			_, err := with(text, uses, stored[a.ValueExpression], cel.StringType, cel.NullType)
			uncompiled(value, a.ValueExpression, err)
		}
		if keys.Twice(a.Key) {
			key.Duplicate(a.Key)
		}
	}
}

func validatePolicyStatus(p, _ *admissionregistrationv1.ValidatingAdmissionPolicy) field.ErrorList {
	at := check.New().Dot("status")
	if p.Status.TypeChecking != nil {
		for i, w := range p.Status.TypeChecking.ExpressionWarnings {
			at := at.Dot("typeChecking").Dot("expressionWarnings").Index(i)
			at.Dot("warning").Present(w.Warning)
			if ref := strings.TrimSpace(w.FieldRef); at.Dot("fieldRef").Present(ref) {
				if err := jsonpath.New("spec").Parse("{" + ref + "}"); err != nil {
					at.Dot("fieldRef").Invalid(ref, fmt.Sprintf("invalid JSONPath: %v", err))
				}
			}
		}
	}
	at.Add(v1validation.ValidateConditions(p.Status.Conditions, at.Dot("conditions").Path())...)
	return at.Errors()
}

var validatingAdmissionPolicyBindings = apis.Define(apis.Resource[*admissionregistrationv1.ValidatingAdmissionPolicyBinding]{
	Plural:     "validatingadmissionpolicybindings",
	Categories: []string{"api-extensions"},
	Scope:      apis.Cluster,
	Default: func(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) {
		defaultMatch(b.Spec.MatchResources)
	},
	Spec:     func(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) any { return b.Spec },
	Validate: validateValidatingBinding,
	Columns: []apis.Column[*admissionregistrationv1.ValidatingAdmissionPolicyBinding]{
		{Name: "PolicyName", Cell: func(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding, _ time.Time) any {
			return b.Spec.PolicyName
		}},
		paramRefColumn(func(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) *admissionregistrationv1.ParamRef {
			return b.Spec.ParamRef
		}),
	},
	Lifetime: apis.Lifetime[*admissionregistrationv1.ValidatingAdmissionPolicyBinding]{NeedsVersion: true},
})

func validateValidatingBinding(b, _ *admissionregistrationv1.ValidatingAdmissionPolicyBinding) field.ErrorList {
	at := check.New().Dot("spec")
	policyName(at.Dot("policyName"), b.Spec.PolicyName)
	paramRef(at.Dot("paramRef"), b.Spec.ParamRef)
	matched(at.Dot("matchResources"), b.Spec.MatchResources)
	actions, given := at.Dot("validationActions"), check.Set[admissionregistrationv1.ValidationAction]{}
	for i, a := range b.Spec.ValidationActions {
		check.OneOf(actions.Index(i), a, admissionregistrationv1.Audit, admissionregistrationv1.Deny, admissionregistrationv1.Warn)
		if given.Twice(a) {
			actions.Index(i).Duplicate(a)
		}
	}
	if given[admissionregistrationv1.Deny] && given[admissionregistrationv1.Warn] {
		actions.Invalid(b.Spec.ValidationActions, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)")
	}
	if len(given) == 0 {
		actions.Required("at least one validation action is required")
	}
	return at.Errors()
}
