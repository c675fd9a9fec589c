package policy

import (
	policyv1 "k8s.io/api/policy/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var podDisruptionBudgets = apis.Define(apis.Resource[*policyv1.PodDisruptionBudget]{
	Plural:   "poddisruptionbudgets",
	Short:    []string{"pdb"},
	Prepare:  meta.KeepStatus[*policyv1.PodDisruptionBudget],
	Spec:     func(b *policyv1.PodDisruptionBudget) any { return &b.Spec },
	Subs:     []apis.Sub[*policyv1.PodDisruptionBudget]{meta.Status[*policyv1.PodDisruptionBudget](nil)},
	Lifetime: apis.Lifetime[*policyv1.PodDisruptionBudget]{NeedsVersion: true},
})
