// Package affinity keeps pods to the nodes that their nodeSelector and node
// affinity ask for, and favours those that they prefer.
package affinity

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/sched"
)

// Plugin is the node affinity plugin.
var Plugin = sched.Plugin[sched.NodeChoice]{
	Name:    "NodeAffinity",
	Weight:  2,
	Prepare: prepare,
	Filter:  filter,
	Score:   score,
	Wakes:   []sched.Change{sched.NodeAdded, sched.NodeLabels},
	Local:   true,
}.Erase()

var mismatch = sched.Verdict{Why: []string{"node(s) didn't match Pod's node affinity/selector"}, Final: true}

func prepare(p *sched.Pod, _ *sched.Cluster) (sched.NodeChoice, sched.Scope) {
	required := sched.RequiredNodes(p.Pod)
	if required == nil && p.Spec.NodeSelector == nil {
		return sched.NodeChoice{}, sched.Scope{Aside: true}
	}
	choice := sched.Demands(p.Pod)
	if required == nil {
		return choice, sched.Scope{}
	}
	names, some := named(required)
	if some && len(names) == 0 {
		return choice, sched.Scope{No: "pod affinity terms conflict"}
	}
	return choice, sched.Scope{Only: names}
}

// named lists the nodes that the terms name, if each of them names some. A
// daemon's pod names one, which spares the look at all others.
func named(s *corev1.NodeSelector) (names []string, all bool) {
	for _, term := range s.NodeSelectorTerms {
		var these []string
		found := false
		for _, f := range term.MatchFields {
			if f.Key != "metadata.name" || f.Operator != corev1.NodeSelectorOpIn {
				continue
			}
			if !found {
				these = slices.Clone(f.Values)
			}
			these = slices.DeleteFunc(these, func(name string) bool { return !slices.Contains(f.Values, name) })
			found = true
		}
		if !found {
			return nil, false
		}
		names = append(names, these...)
	}
	return names, len(s.NodeSelectorTerms) > 0
}

func filter(choice sched.NodeChoice, _ *sched.Pod, n *sched.Node) sched.Verdict {
	if !choice.Match(n.Node) {
		return mismatch
	}
	return sched.Fits
}

func score(p *sched.Pod, _ *sched.Cluster, nodes []*sched.Node, scores []int64) {
	a := p.Spec.Affinity
	if a == nil || a.NodeAffinity == nil {
		return
	}
	for _, preferred := range a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
		term := sched.CompileNode(&preferred.Preference)
		for i, n := range nodes {
			if term.Match(n.Node) {
				scores[i] += int64(preferred.Weight)
			}
		}
	}
	sched.Stretch(scores, false)
}
