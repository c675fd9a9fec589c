// Package resources keeps pods to nodes that have free what they request, and
// favours nodes that have much left and that a pod leaves in balance.
package resources

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/sched"
)

// Fit is the resource fit plugin.
var Fit = sched.Plugin[struct{}]{
	Name:   "NodeResourcesFit",
	Weight: 1,
	Filter: filter,
	Score:  roomiest,
	Wakes:  []sched.Change{sched.NodeAdded, sched.NodeAllocatable, sched.PodDeleted, sched.PodShrunk},
	Local:  true,
}.Erase()

func filter(_ struct{}, p *sched.Pod, n *sched.Node) (v sched.Verdict) {
	if int64(len(n.Pods)) >= n.MaxPods {
		v.Why = append(v.Why, "Too many pods")
	}
	want, used, has := &p.Requests, &n.Used, &n.Allocatable
	lack(&v, corev1.ResourceCPU, want.CPU, used.CPU, has.CPU)
	lack(&v, corev1.ResourceMemory, want.Memory, used.Memory, has.Memory)
	lack(&v, corev1.ResourceEphemeralStorage, want.Storage, used.Storage, has.Storage)
	for name, amount := range want.Other {
		lack(&v, name, amount, used.Other[name], has.Other[name])
	}
	return v
}

// lack adds to v that there is too little of a resource. Where there would be
// too little on the empty node too, no eviction helps.
func lack(v *sched.Verdict, name corev1.ResourceName, want, used, has int64) {
	if want == 0 || want <= has-used {
		return
	}
	v.Why = append(v.Why, "Insufficient "+string(name))
	v.Final = v.Final || want > has
}

// roomiest favours nodes of which the smallest part is requested. As
// upstream: of the incoming pod, but not of those there, only the containers
// count here.
func roomiest(p *sched.Pod, _ *sched.Cluster, nodes []*sched.Node, scores []int64) {
	asked := sched.ScoredByContainer(p)
	for i, n := range nodes {
		var sum, kinds int64
		left := func(used, has int64) {
			if has == 0 {
				return
			}
			kinds++
			if used <= has {
				sum += (has - used) * 100 / has
			}
		}
		left(n.Scored.CPU+asked.CPU, n.Allocatable.CPU)
		left(n.Scored.Memory+asked.Memory, n.Allocatable.Memory)
		if kinds > 0 {
			scores[i] = sum / kinds
		}
	}
}
