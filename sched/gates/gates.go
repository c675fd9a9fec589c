// Package gates holds back pods that have scheduling gates. The condition
// that says so is set by the API server when the pod is created.
package gates

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/sched"
)

// Plugin is the scheduling gates plugin.
var Plugin = sched.Plugin[struct{}]{
	Name: "SchedulingGates",
	Hold: func(p *corev1.Pod) bool { return len(p.Spec.SchedulingGates) > 0 },
}.Erase()
