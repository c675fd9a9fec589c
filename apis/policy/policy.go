// Package policy says what the kinds of the policy group are: how many pods may be down at once.
package policy

import (
	policyv1 "k8s.io/api/policy/v1"

	"github.com/knarr-dev/knarr/apis"
)

// Group is policy/v1.
var Group = apis.In(policyv1.SchemeGroupVersion, podDisruptionBudgets)
