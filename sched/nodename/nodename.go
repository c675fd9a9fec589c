// Package nodename keeps a pod that names its node off all others. Such pods
// do not come before the scheduler by themselves.
package nodename

import "github.com/knarr-dev/knarr/sched"

// Plugin is the node name plugin.
var Plugin = sched.Plugin[struct{}]{
	Name:    "NodeName",
	Prepare: prepare,
	Filter:  filter,
	Wakes:   []sched.Change{sched.NodeAdded},
	Local:   true,
}.Erase()

var other = sched.Verdict{Why: []string{"node(s) didn't match the requested node name"}, Final: true}

func prepare(p *sched.Pod, _ *sched.Cluster) (struct{}, sched.Scope) {
	return struct{}{}, sched.Scope{Aside: p.Spec.NodeName == ""}
}

func filter(_ struct{}, p *sched.Pod, n *sched.Node) sched.Verdict {
	if p.Spec.NodeName != n.Name {
		return other
	}
	return sched.Fits
}
