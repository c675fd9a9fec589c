// Package autoscaling says what the kinds of the autoscaling group are: how many pods a
// workload should have.
package autoscaling

import (
	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"github.com/knarr-dev/knarr/apis"
)

// Group is autoscaling/v2.
var Group = apis.In(autoscalingv2.SchemeGroupVersion, horizontalPodAutoscalers)
