package sched

import (
	"iter"

	"k8s.io/apimachinery/pkg/labels"
)

// A Group is the pods of a namespace that have the same labels, most often
// those of one controller: what selects one of them selects all.
type Group struct {
	Namespace string
	Labels    labels.Set
	Leaving   bool          // they are being deleted
	On        map[*Node]int // how many, by node
}

// groups are the groups of each namespace, by what they have in common.
type groups map[string]map[string]*Group

// count adds to the group that p belongs to on n.
func (gs groups) count(p *Pod, n *Node, by int) {
	key := p.group()
	g := gs[p.Namespace][key]
	if g == nil {
		g = &Group{Namespace: p.Namespace, Labels: p.Labels, Leaving: p.DeletionTimestamp != nil, On: map[*Node]int{}}
		if gs[p.Namespace] == nil {
			gs[p.Namespace] = map[string]*Group{}
		}
		gs[p.Namespace][key] = g
	}
	if g.On[n] += by; g.On[n] == 0 {
		delete(g.On, n)
	}
	if len(g.On) == 0 {
		delete(gs[p.Namespace], key)
		if len(gs[p.Namespace]) == 0 {
			delete(gs, p.Namespace)
		}
	}
}

// Groups goes through the pods of a namespace, or of all where it is empty,
// by group.
func (c *Cluster) Groups(namespace string) iter.Seq[*Group] {
	return func(yield func(*Group) bool) {
		if namespace != "" {
			for _, g := range c.groups[namespace] {
				if !yield(g) {
					return
				}
			}
			return
		}
		for _, of := range c.groups {
			for _, g := range of {
				if !yield(g) {
					return
				}
			}
		}
	}
}

// A Count is a number of pods on each node.
type Count struct {
	Nodes []*Node // where there are any
	by    []int   // by slot
}

// Count counts the pods of a namespace that the selector picks and that are
// not being deleted.
func (c *Cluster) Count(namespace string, selector labels.Selector) Count {
	k := Count{by: make([]int, c.slots)}
	for g := range c.Groups(namespace) {
		if g.Leaving || !selector.Matches(g.Labels) {
			continue
		}
		for n, pods := range g.On {
			if n.Node == nil {
				continue
			}
			if k.by[n.slot] == 0 {
				k.Nodes = append(k.Nodes, n)
			}
			k.by[n.slot] += pods
		}
	}
	return k
}

// On is how many pods were counted on n.
func (k Count) On(n *Node) int { return k.by[n.slot] }
