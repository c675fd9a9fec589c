// Package interpod keeps pods near other pods or away from them, as their
// affinity asks, and as the affinity of the pods that are there already asks.
package interpod

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/sched"
)

// Plugin is the inter-pod affinity plugin.
var Plugin = sched.Plugin[*state]{
	Name:    "InterPodAffinity",
	Weight:  2,
	Prepare: prepare,
	Filter:  filter,
	Moved:   moved,
	Score:   score,
	Wakes: []sched.Change{
		sched.NodeAdded, sched.NodeLabels, sched.PodAssigned, sched.PodLabels, sched.PodDeleted,
	},
	Helps:    helps,
	Reads:    []apis.Object{&corev1.Namespace{}},
	ReadsFor: reaches,
}.Erase()

var (
	alone    = sched.Verdict{Why: []string{"node(s) didn't match pod affinity rules"}, Final: true}
	unwanted = sched.Verdict{Why: []string{"node(s) didn't match pod anti-affinity rules"}}
	opposed  = sched.Verdict{Why: []string{"node(s) didn't satisfy existing pods anti-affinity rules"}}
)

// A place is a value of a node label: all nodes that have it.
type place struct{ key, value string }

// places counts pods by place. A later count may lie over an earlier one.
type places struct {
	count map[place]int
	over  *places
}

func (ps *places) at(p place) (sum int) {
	for ; ps != nil; ps = ps.over {
		sum += ps.count[p]
	}
	return sum
}

// add counts on n, and tells whether n is in such a place at all.
func (ps *places) add(n *sched.Node, key string, by int) bool {
	if n.Node == nil {
		return false
	}
	value, ok := n.Labels[key]
	if ok {
		ps.count[place{key, value}] += by
	}
	return ok
}

// state is where the pods are that matter to the pod.
type state struct {
	require, avoid []sched.Term // those of the pod, their namespaces by name
	namespace      labels.Set   // the labels of the pod's namespace

	wanted    *places // pods that match all of require
	hated     *places // pods that match one of avoid
	opponents *places // pods that avoid the pod

	found   int // pods counted in wanted
	against int // nodes looked at with pods counted in opponents
	self    bool
}

func prepare(p *sched.Pod, c *sched.Cluster) (*state, sched.Scope) {
	s := &state{
		require: byName(p.Require, c.Objects), avoid: byName(p.Avoid, c.Objects), namespace: spaceLabels(p, c.Objects),
		wanted: fresh(nil), hated: fresh(nil), opponents: fresh(nil),
	}
	s.self = matchesAll(s.require, p.Pod)
	for n := range c.Averse() {
		if n.Node != nil {
			for _, other := range n.Averse {
				s.oppose(p, other, n, 1)
			}
		}
	}
	if len(s.require)+len(s.avoid) == 0 {
		return s, sched.Scope{Aside: s.against == 0}
	}
	for g := range c.Groups("") {
		s.meet(g.Namespace, g.Labels, g.On, 1)
	}
	return s, sched.Scope{}
}

func fresh(over *places) *places { return &places{map[place]int{}, over} }

// meet counts pods that are alike, on each of some nodes, for what the
// incoming pod asks of them.
func (s *state) meet(namespace string, set labels.Set, on map[*sched.Node]int, sign int) {
	if selectsAll(s.require, namespace, set) {
		for i := range s.require {
			for n, pods := range on {
				if s.wanted.add(n, s.require[i].TopologyKey, sign*pods) {
					s.found += sign * pods
				}
			}
		}
	}
	for i := range s.avoid {
		if !s.avoid[i].Selects(namespace, set, nil) {
			continue
		}
		for n, pods := range on {
			s.hated.add(n, s.avoid[i].TopologyKey, sign*pods)
		}
	}
}

// oppose counts a pod on n for what it asks of the incoming pod.
func (s *state) oppose(p, other *sched.Pod, n *sched.Node, by int) {
	for i := range other.Avoid {
		if t := &other.Avoid[i]; t.Matches(p.Pod, s.namespace) && s.opponents.add(n, t.TopologyKey, by) {
			s.against += by
		}
	}
}

func moved(s *state, p *sched.Pod, n *sched.Node, left, joined []*sched.Pod) *state {
	then := *s
	then.wanted, then.hated, then.opponents = fresh(s.wanted), fresh(s.hated), fresh(s.opponents)
	here := map[*sched.Node]int{n: 1}
	for _, other := range left {
		then.meet(other.Namespace, other.Labels, here, -1)
		then.oppose(p, other, n, -1)
	}
	for _, other := range joined {
		then.meet(other.Namespace, other.Labels, here, 1)
		then.oppose(p, other, n, 1)
	}
	return &then
}

func filter(s *state, _ *sched.Pod, n *sched.Node) sched.Verdict {
	switch {
	case !s.company(n):
		return alone
	case !s.peace(n):
		return unwanted
	case !s.welcome(n):
		return opposed
	}
	return sched.Fits
}

// company tells whether the pods that the pod wants to be near are near n.
// The first of a group that wants to be near itself may go anywhere.
func (s *state) company(n *sched.Node) bool {
	near := true
	for i := range s.require {
		key := s.require[i].TopologyKey
		value, ok := n.Labels[key]
		if !ok {
			return false
		}
		near = near && s.wanted.at(place{key, value}) > 0
	}
	return near || s.found == 0 && s.self
}

func (s *state) peace(n *sched.Node) bool {
	for i := range s.avoid {
		key := s.avoid[i].TopologyKey
		if value, ok := n.Labels[key]; ok && s.hated.at(place{key, value}) > 0 {
			return false
		}
	}
	return true
}

func (s *state) welcome(n *sched.Node) bool {
	if s.against == 0 {
		return true
	}
	for key, value := range n.Labels {
		if s.opponents.at(place{key, value}) > 0 {
			return false
		}
	}
	return true
}

// matchesAll tells whether p matches each of the terms, and that there are
// any.
func matchesAll(terms []sched.Term, p *corev1.Pod) bool {
	return selectsAll(terms, p.Namespace, p.Labels)
}

func selectsAll(terms []sched.Term, namespace string, set labels.Set) bool {
	for i := range terms {
		if !terms[i].Selects(namespace, set, nil) {
			return false
		}
	}
	return len(terms) > 0
}

// byName resolves the namespaces that terms pick by label, once a cycle
// rather than once a pod that is compared.
func byName(terms []sched.Term, o sched.Objects) []sched.Term {
	if !slices.ContainsFunc(terms, func(t sched.Term) bool { return t.Reaches() }) {
		return terms
	}
	out := slices.Clone(terms)
	for i := range out {
		t := &out[i]
		if !t.Reaches() {
			continue
		}
		t.Namespaces = slices.Clone(t.Namespaces)
		for ns := range sched.In[*corev1.Namespace](o, "") {
			if t.Spaces.Matches(labels.Set(ns.Labels)) {
				t.Namespaces = append(t.Namespaces, ns.Name)
			}
		}
		t.Spaces = labels.Nothing()
	}
	return out
}

func spaceLabels(p *sched.Pod, o sched.Objects) labels.Set {
	if ns, ok := sched.Get[*corev1.Namespace](o, "", p.Namespace); ok {
		return ns.Labels
	}
	return nil
}

// reaches tells whether the labels of namespaces matter to p, on whichever
// side of a meeting it is.
func reaches(p *sched.Pod) bool {
	for _, terms := range [][]sched.Term{p.Require, p.Avoid, p.Prefer} {
		if slices.ContainsFunc(terms, func(t sched.Term) bool { return t.Reaches() }) {
			return true
		}
	}
	return false
}

// helps leaves out pods that p has nothing to do with.
func helps(p *sched.Pod, e sched.Event) bool {
	if e.Pod == nil {
		return true
	}
	if slices.ContainsFunc(p.Require, func(t sched.Term) bool { return t.Reaches() }) || slices.ContainsFunc(p.Avoid, func(t sched.Term) bool { return t.Reaches() }) {
		return true
	}
	switch e.Change {
	case sched.PodAssigned:
		return matchesAll(p.Require, e.Pod)
	case sched.PodDeleted:
		// Who opposed p may be among those that are gone.
		other := sched.NewPod(e.Pod)
		return matchesAny(p.Avoid, e.Pod) || slices.ContainsFunc(other.Avoid, func(t sched.Term) bool { return t.Reaches() || t.Matches(p.Pod, nil) })
	case sched.PodLabels:
		return matchesAll(p.Require, e.Pod) || matchesAny(p.Avoid, e.Was)
	}
	return true
}

func matchesAny(terms []sched.Term, p *corev1.Pod) bool {
	return slices.ContainsFunc(terms, func(t sched.Term) bool { return t.Matches(p, nil) })
}
