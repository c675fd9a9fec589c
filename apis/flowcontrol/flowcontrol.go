// Package flowcontrol says what the kinds of the flowcontrol.apiserver.k8s.io group are: which requests wait
// for which.
package flowcontrol

import (
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"github.com/knarr-dev/knarr/apis"
)

// Group is flowcontrol.apiserver.k8s.io/v1.
var Group = apis.In(flowcontrolv1.SchemeGroupVersion, flowSchemas, priorityLevelConfigurations)
