// Package taint keeps pods off nodes whose taints they do not tolerate.
package taint

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/sched"
)

// Plugin is the taint plugin.
var Plugin = sched.Plugin[struct{}]{
	Name:   "TaintToleration",
	Weight: 3,
	Filter: filter,
	Score:  score,
	Wakes:  []sched.Change{sched.NodeAdded, sched.NodeTaints},
	Local:  true,
}.Erase()

var tainted = sched.Verdict{Why: []string{"node(s) had untolerated taint(s)"}, Final: true}

func filter(_ struct{}, p *sched.Pod, n *sched.Node) sched.Verdict {
	if sched.Repels(n.Node, p.Pod) {
		return tainted
	}
	return sched.Fits
}

// score counts the taints that the pod would rather not have to put up with.
func score(p *sched.Pod, _ *sched.Cluster, nodes []*sched.Node, scores []int64) {
	for i, n := range nodes {
		for j := range n.Spec.Taints {
			t := &n.Spec.Taints[j]
			if t.Effect == corev1.TaintEffectPreferNoSchedule && !sched.Tolerates(p.Pod, t) {
				scores[i]++
			}
		}
	}
	sched.Stretch(scores, true)
}
