// Package cordon keeps pods off nodes that are marked unschedulable.
package cordon

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/sched"
)

// Plugin is the unschedulable nodes plugin.
var Plugin = sched.Plugin[struct{}]{
	Name:   "NodeUnschedulable",
	Filter: filter,
	Wakes:  []sched.Change{sched.NodeAdded, sched.NodeTaints},
	Local:  true,
}.Erase()

var (
	cordoned = sched.Verdict{Why: []string{"node(s) were unschedulable"}, Final: true}

	// Who puts up with the taint of cordoned nodes puts up with the mark.
	mark = corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}
)

func filter(_ struct{}, p *sched.Pod, n *sched.Node) sched.Verdict {
	if n.Spec.Unschedulable && !sched.Tolerates(p.Pod, &mark) {
		return cordoned
	}
	return sched.Fits
}
