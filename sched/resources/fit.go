// Package resources keeps pods to nodes that have free what they request, and
// favours nodes that have much left and that a pod leaves in balance.
package resources

import (
	"slices"

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

// The reasons that are frequent, made once.
var (
	crowded   = []string{"Too many pods"}
	noCPU     = []string{"Insufficient cpu"}
	noMemory  = []string{"Insufficient memory"}
	noStorage = []string{"Insufficient ephemeral-storage"}
)

func filter(_ struct{}, p *sched.Pod, n *sched.Node) (v sched.Verdict) {
	if int64(len(n.Pods)) >= n.MaxPods {
		v.Why = crowded
	}
	want, used, has := &p.Requests, &n.Used, &n.Allocatable
	if short(&v, want.CPU, used.CPU, has.CPU) {
		v.Why = join(v.Why, noCPU)
	}
	if short(&v, want.Memory, used.Memory, has.Memory) {
		v.Why = join(v.Why, noMemory)
	}
	if short(&v, want.Storage, used.Storage, has.Storage) {
		v.Why = join(v.Why, noStorage)
	}
	for name, amount := range want.Other {
		if short(&v, amount, used.Other[name], has.Other[name]) {
			v.Why = join(v.Why, []string{"Insufficient " + string(name)})
		}
	}
	return v
}

// short tells whether there is too little of a resource. Where there would be
// too little on the empty node too, no eviction helps.
func short(v *sched.Verdict, want, used, has int64) bool {
	if want == 0 || want <= has-used {
		return false
	}
	v.Final = v.Final || want > has
	return true
}

func join(whys, more []string) []string {
	if len(whys) == 0 {
		return more
	}
	return slices.Concat(whys, more)
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
