// Package spread keeps the pods of a group evenly spread over the domains of
// the cluster: nodes, zones, or whatever label their constraints name.
package spread

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-dev/knarr/sched"
)

// A constraint asks that no domain has more than skew pods above the least.
type constraint struct {
	key        string // the node label whose values are the domains
	skew       int
	selector   labels.Selector // of the pods to count
	minDomains int

	affinity, taints bool // count only nodes that these let the pod onto
}

// defaults hold for pods that have no constraints of their own.
var defaults = []constraint{
	{key: corev1.LabelHostname, skew: 3, affinity: true},
	{key: corev1.LabelTopologyZone, skew: 5, affinity: true},
}

// constraints are those of p that have that effect.
func constraints(p *corev1.Pod, effect corev1.UnsatisfiableConstraintAction) (out []constraint) {
	for i := range p.Spec.TopologySpreadConstraints {
		in := &p.Spec.TopologySpreadConstraints[i]
		if in.WhenUnsatisfiable != effect {
			continue
		}
		c := constraint{key: in.TopologyKey, skew: int(in.MaxSkew), minDomains: 1, selector: narrowed(in, p), affinity: true}
		if in.MinDomains != nil {
			c.minDomains = int(*in.MinDomains)
		}
		if in.NodeAffinityPolicy != nil {
			c.affinity = *in.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor
		}
		if in.NodeTaintsPolicy != nil {
			c.taints = *in.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor
		}
		out = append(out, c)
	}
	return out
}

// narrowed is the selector of a constraint, to which matchLabelKeys adds that
// pods must be like p.
func narrowed(in *corev1.TopologySpreadConstraint, p *corev1.Pod) labels.Selector {
	selector := sched.Selector(in.LabelSelector)
	like := labels.Set{}
	for _, key := range in.MatchLabelKeys {
		if v, ok := p.Labels[key]; ok {
			like[key] = v
		}
	}
	rules, _ := labels.SelectorFromSet(like).Requirements()
	return selector.Add(rules...)
}

// includes tells whether the pods on n count.
func (c *constraint) includes(n *sched.Node, p *sched.Pod, demands *sched.NodeChoice) bool {
	if c.affinity && !demands.Match(n.Node) {
		return false
	}
	return !c.taints || !sched.Repels(n.Node, p.Pod)
}

// counts tells whether other counts as one of p's group.
func (c *constraint) counts(other, p *corev1.Pod) bool {
	return other.Namespace == p.Namespace && other.DeletionTimestamp == nil && c.selector.Matches(labels.Set(other.Labels))
}

// count counts p's group. An empty selector counts none.
func (c *constraint) count(cluster *sched.Cluster, p *sched.Pod) sched.Count {
	if c.selector.Empty() {
		return cluster.Count(p.Namespace, labels.Nothing())
	}
	return cluster.Count(p.Namespace, c.selector)
}

// labelled tells whether n lies in a domain of each of the constraints.
func labelled(n *sched.Node, cs []constraint) bool {
	for i := range cs {
		if _, ok := n.Labels[cs[i].key]; !ok {
			return false
		}
	}
	return true
}
