// Package scheduling says what the kinds of the scheduling.k8s.io group are: which pods come first.
package scheduling

import (
	schedulingv1 "k8s.io/api/scheduling/v1"

	"github.com/knarr-dev/knarr/apis"
)

// Group is scheduling.k8s.io/v1.
var Group = apis.In(schedulingv1.SchemeGroupVersion, priorityClasses)
