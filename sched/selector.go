package sched

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// NodeTerms picks nodes: those that one of the terms picks.
type NodeTerms []NodeTerm

// A NodeTerm picks nodes by their labels and their name.
type NodeTerm struct {
	labels labels.Selector // nil for any
	names  []nameRule
	broken bool // never picks anything
}

type nameRule struct {
	name  string
	other bool // any but name
}

// nameField is the only field of a node that a selector may ask for.
const nameField = "metadata.name"

var operators = map[corev1.NodeSelectorOperator]selection.Operator{
	corev1.NodeSelectorOpIn:           selection.In,
	corev1.NodeSelectorOpNotIn:        selection.NotIn,
	corev1.NodeSelectorOpExists:       selection.Exists,
	corev1.NodeSelectorOpDoesNotExist: selection.DoesNotExist,
	corev1.NodeSelectorOpGt:           selection.GreaterThan,
	corev1.NodeSelectorOpLt:           selection.LessThan,
}

// CompileNodes makes s ready for use. A term that asks for nothing picks
// nothing, and so does one that cannot be understood.
func CompileNodes(s *corev1.NodeSelector) NodeTerms {
	out := make(NodeTerms, 0, len(s.NodeSelectorTerms))
	for i := range s.NodeSelectorTerms {
		out = append(out, CompileNode(&s.NodeSelectorTerms[i]))
	}
	return out
}

// CompileNode makes one term ready for use.
func CompileNode(term *corev1.NodeSelectorTerm) (t NodeTerm) {
	t.broken = len(term.MatchExpressions)+len(term.MatchFields) == 0
	if len(term.MatchExpressions) > 0 {
		t.labels = labels.NewSelector()
	}
	for _, e := range term.MatchExpressions {
		r, err := labels.NewRequirement(e.Key, operators[e.Operator], e.Values)
		if err != nil {
			t.broken = true
			continue
		}
		t.labels = t.labels.Add(*r)
	}
	for _, f := range term.MatchFields {
		is, isnt := f.Operator == corev1.NodeSelectorOpIn, f.Operator == corev1.NodeSelectorOpNotIn
		if f.Key != nameField || len(f.Values) != 1 || !is && !isnt {
			t.broken = true
			continue
		}
		t.names = append(t.names, nameRule{f.Values[0], isnt})
	}
	return t
}

// Match tells whether one of the terms picks n.
func (ts NodeTerms) Match(n *corev1.Node) bool {
	for i := range ts {
		if ts[i].Match(n) {
			return true
		}
	}
	return false
}

// Match tells whether the term picks n.
func (t *NodeTerm) Match(n *corev1.Node) bool {
	if t.broken {
		return false
	}
	for _, r := range t.names {
		if (r.name == n.Name) == r.other {
			return false
		}
	}
	return t.labels == nil || t.labels.Matches(labels.Set(n.Labels))
}

// A NodeChoice is what a pod demands of its node: its nodeSelector and its
// required node affinity. The zero value demands nothing.
type NodeChoice struct {
	selector labels.Selector
	affinity NodeTerms
	bound    bool // by affinity
}

// Demands compiles what p demands of its node.
func Demands(p *corev1.Pod) (c NodeChoice) {
	if len(p.Spec.NodeSelector) > 0 {
		c.selector = labels.SelectorFromSet(p.Spec.NodeSelector)
	}
	if required := RequiredNodes(p); required != nil {
		c.affinity, c.bound = CompileNodes(required), true
	}
	return c
}

// RequiredNodes is the required node affinity of p, nil where it has none.
func RequiredNodes(p *corev1.Pod) *corev1.NodeSelector {
	if a := p.Spec.Affinity; a != nil && a.NodeAffinity != nil {
		return a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	}
	return nil
}

// Match tells whether n is what the pod demands.
func (c *NodeChoice) Match(n *corev1.Node) bool {
	if c.selector != nil && !c.selector.Matches(labels.Set(n.Labels)) {
		return false
	}
	return !c.bound || c.affinity.Match(n)
}

// Tolerates tells whether p puts up with the taint.
func Tolerates(p *corev1.Pod, t *corev1.Taint) bool {
	for i := range p.Spec.Tolerations {
		tol := &p.Spec.Tolerations[i]
		if tol.Effect != "" && tol.Effect != t.Effect || tol.Key != "" && tol.Key != t.Key {
			continue
		}
		switch tol.Operator {
		case corev1.TolerationOpExists:
			return true
		case "", corev1.TolerationOpEqual:
			if tol.Value == t.Value {
				return true
			}
		}
	}
	return false
}

// Repels tells whether a taint of n keeps p away.
func Repels(n *corev1.Node, p *corev1.Pod) bool {
	for i := range n.Spec.Taints {
		t := &n.Spec.Taints[i]
		if t.Effect != corev1.TaintEffectPreferNoSchedule && !Tolerates(p, t) {
			return true
		}
	}
	return false
}
