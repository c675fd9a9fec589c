package resources

import (
	"math"

	"github.com/knarr-dev/knarr/sched"
)

// Balance is the balanced allocation plugin.
var Balance = sched.Plugin[struct{}]{
	Name:   "NodeResourcesBalancedAllocation",
	Weight: 1,
	Score:  balance,
}.Erase()

// balance favours nodes whose CPU and memory the pod brings closer to being
// used in the same proportion: 75 is no change, 100 the greatest gain. A pod
// that requests neither is left out, or one node would draw all of them.
func balance(p *sched.Pod, _ *sched.Cluster, nodes []*sched.Node, scores []int64) {
	if p.Requests.CPU == 0 && p.Requests.Memory == 0 {
		return
	}
	for i, n := range nodes {
		before := evenness(n.Used.CPU, n.Used.Memory, n)
		after := evenness(n.Used.CPU+p.Requests.CPU, n.Used.Memory+p.Requests.Memory, n)
		scores[i] = 50 + (50+after-before)/2
	}
}

// evenness is 100 where the same part of CPU and memory is in use. A resource
// that the node does not have has no part.
func evenness(cpu, memory int64, n *sched.Node) int64 {
	if n.Allocatable.CPU == 0 || n.Allocatable.Memory == 0 {
		return 100
	}
	a := min(1, float64(cpu)/float64(n.Allocatable.CPU))
	b := min(1, float64(memory)/float64(n.Allocatable.Memory))
	return int64((1 - math.Abs((a-b)/2)) * 100)
}
