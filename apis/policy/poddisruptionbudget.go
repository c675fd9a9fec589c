package policy

import (
	"time"

	policyv1 "k8s.io/api/policy/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

var podDisruptionBudgets = apis.Define(apis.Resource[*policyv1.PodDisruptionBudget]{
	Plural: "poddisruptionbudgets",
	Short:  []string{"pdb"},

	Prepare:  meta.KeepStatus[*policyv1.PodDisruptionBudget],
	Validate: validatePodDisruptionBudget,
	Name:     meta.PathSegment,
	Spec:     func(b *policyv1.PodDisruptionBudget) any { return &b.Spec },
	Subs:     []apis.Sub[*policyv1.PodDisruptionBudget]{meta.Status(validatePodDisruptionBudgetStatus)},

	Columns: []apis.Column[*policyv1.PodDisruptionBudget]{
		{Name: "Min Available", Cell: func(b *policyv1.PodDisruptionBudget, _ time.Time) any { return printShare(b.Spec.MinAvailable) }},
		{Name: "Max Unavailable", Cell: func(b *policyv1.PodDisruptionBudget, _ time.Time) any { return printShare(b.Spec.MaxUnavailable) }},
		{Name: "Allowed Disruptions", Type: "integer", Cell: func(b *policyv1.PodDisruptionBudget, _ time.Time) any {
			return int64(b.Status.DisruptionsAllowed)
		}},
	},
	Lifetime: apis.Lifetime[*policyv1.PodDisruptionBudget]{NeedsVersion: true},
})

func printShare(n *intstr.IntOrString) string {
	if n == nil {
		return "N/A"
	}
	return n.String()
}

func validatePodDisruptionBudget(b, old *policyv1.PodDisruptionBudget) field.ErrorList {
	root, s := check.New(), &b.Spec
	at := root.Dot("spec")
	if s.MinAvailable != nil && s.MaxUnavailable != nil {
		at.Invalid(check.Bare(*s), "minAvailable and maxUnavailable cannot be both set")
	}
	share(at.Dot("minAvailable"), s.MinAvailable)
	share(at.Dot("maxUnavailable"), s.MaxUnavailable)
	meta.Selector(at.Dot("selector"), s.Selector, old != nil && meta.Odd(old.Spec.Selector))
	if p := s.UnhealthyPodEvictionPolicy; p != nil {
		check.OneOf(at.Dot("unhealthyPodEvictionPolicy"), *p, policyv1.IfHealthyBudget, policyv1.AlwaysAllow)
	}
	return root.Errors()
}

func share(at check.At, n *intstr.IntOrString) {
	if n != nil {
		meta.Share(at, n)
		meta.AtMostAll(at, n)
	}
}

func validatePodDisruptionBudgetStatus(b, _ *policyv1.PodDisruptionBudget) field.ErrorList {
	root, s := check.New(), &b.Status
	at := root.Dot("status")
	conditions := at.Dot("conditions")
	conditions.Add(metavalidation.ValidateConditions(s.Conditions, conditions.Path())...)
	check.NonNegative(at.Dot("disruptionsAllowed"), s.DisruptionsAllowed)
	check.NonNegative(at.Dot("currentHealthy"), s.CurrentHealthy)
	check.NonNegative(at.Dot("desiredHealthy"), s.DesiredHealthy)
	check.NonNegative(at.Dot("expectedPods"), s.ExpectedPods)
	return root.Errors()
}
