// Package coordination says what the kinds of the coordination.k8s.io group are: who leads.
package coordination

import (
	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/knarr-dev/knarr/apis"
)

// Group is coordination.k8s.io/v1.
var Group = apis.In(coordinationv1.SchemeGroupVersion, leases)
