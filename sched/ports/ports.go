// Package ports keeps pods that want the same port of the host apart.
package ports

import (
	"slices"

	"github.com/knarr-dev/knarr/sched"
)

// Plugin is the host ports plugin.
var Plugin = sched.Plugin[struct{}]{
	Name:    "NodePorts",
	Prepare: prepare,
	Filter:  filter,
	Wakes:   []sched.Change{sched.NodeAdded, sched.PodDeleted},
	Local:   true,
}.Erase()

var taken = sched.Verdict{Why: []string{"node(s) didn't have free ports for the requested pod ports"}}

func prepare(p *sched.Pod, _ *sched.Cluster) (struct{}, sched.Scope) {
	return struct{}{}, sched.Scope{Aside: len(p.Ports) == 0}
}

func filter(_ struct{}, p *sched.Pod, n *sched.Node) sched.Verdict {
	for _, want := range p.Ports {
		if slices.ContainsFunc(n.Ports, want.Clash) {
			return taken
		}
	}
	return sched.Fits
}
