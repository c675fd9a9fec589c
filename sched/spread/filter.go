package spread

import (
	"maps"
	"math"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/sched"
)

// Plugin is the topology spread plugin.
var Plugin = sched.Plugin[*state]{
	Name:    "PodTopologySpread",
	Weight:  2,
	Prepare: prepare,
	Filter:  filter,
	Moved:   moved,
	Score:   score,
	Wakes: []sched.Change{
		sched.NodeAdded, sched.NodeDeleted, sched.NodeLabels, sched.NodeTaints,
		sched.PodAssigned, sched.PodLabels, sched.PodDeleted,
	},
	Helps: helps,
	// They tell which pods belong together where the pod does not say.
	Reads:    []apis.Object{&corev1.Service{}, &corev1.ReplicationController{}, &appsv1.ReplicaSet{}, &appsv1.StatefulSet{}},
	ReadsFor: func(p *sched.Pod) bool { return p.Spec.NodeName == "" && len(p.Spec.TopologySpreadConstraints) == 0 },
}.Erase()

var (
	uneven    = sched.Verdict{Why: []string{"node(s) didn't match pod topology spread constraints"}}
	unlabeled = sched.Verdict{Why: []string{"node(s) didn't match pod topology spread constraints (missing required label)"}, Final: true}
)

// state is how the pods are spread over the domains of each constraint.
type state struct {
	demands sched.NodeChoice
	hard    []spread
}

type spread struct {
	constraint
	self    int            // one if the pod itself counts
	domains map[string]int // how many pods count, by domain
	low     low
}

// low is the domain with the fewest pods, and how many the next one has.
type low struct {
	domain      string
	least, next int
}

func prepare(p *sched.Pod, c *sched.Cluster) (*state, sched.Scope) {
	cs := constraints(p.Pod, corev1.DoNotSchedule)
	if len(cs) == 0 {
		return nil, sched.Scope{Aside: true}
	}
	s := &state{demands: sched.Demands(p.Pod)}
	counts := make([]sched.Count, len(cs))
	for i, con := range cs {
		sp := spread{constraint: con, domains: map[string]int{}}
		if con.selector.Matches(labels.Set(p.Labels)) {
			sp.self = 1
		}
		s.hard = append(s.hard, sp)
		counts[i] = con.count(c, p)
	}
	for _, n := range c.Nodes() {
		if !labelled(n, cs) {
			continue
		}
		for i := range s.hard {
			if h := &s.hard[i]; h.includes(n, p, &s.demands) {
				h.domains[n.Labels[h.key]] += counts[i].On(n)
			}
		}
	}
	for i := range s.hard {
		s.hard[i].low = lowest(s.hard[i].domains)
	}
	return s, sched.Scope{}
}

func lowest(domains map[string]int) low {
	l := low{least: math.MaxInt32, next: math.MaxInt32}
	for domain, count := range domains {
		switch {
		case count < l.least:
			l = low{domain, count, l.least}
		case count < l.next:
			l.next = count
		}
	}
	return l
}

func filter(s *state, _ *sched.Pod, n *sched.Node) sched.Verdict {
	for i := range s.hard {
		h := &s.hard[i]
		domain, ok := n.Labels[h.key]
		if !ok {
			return unlabeled
		}
		least := h.low.least
		if len(h.domains) < h.minDomains {
			least = 0 // in the domains that are not there yet
		}
		if h.domains[domain]+h.self-least > h.skew {
			return uneven
		}
	}
	return sched.Fits
}

// moved counts anew in the domains of the one node.
func moved(s *state, p *sched.Pod, n *sched.Node, left, joined []*sched.Pod) *state {
	then := &state{demands: s.demands, hard: append([]spread(nil), s.hard...)}
	for i := range then.hard {
		h := &then.hard[i]
		domain, ok := n.Labels[h.key]
		by := h.among(joined, p) - h.among(left, p)
		if !ok || by == 0 || !h.includes(n, p, &then.demands) {
			continue
		}
		h.domains = maps.Clone(h.domains)
		h.domains[domain] += by
		h.low = lowest(h.domains)
	}
	return then
}

func (c *constraint) among(pods []*sched.Pod, p *sched.Pod) (count int) {
	for _, other := range pods {
		if c.counts(other.Pod, p.Pod) {
			count++
		}
	}
	return count
}

// helps leaves out what happens to pods that are not of p's group.
func helps(p *sched.Pod, e sched.Event) bool {
	if e.Pod == nil {
		return true
	}
	if e.Pod.Namespace != p.Namespace {
		return false
	}
	for _, c := range constraints(p.Pod, corev1.DoNotSchedule) {
		if c.selector.Matches(labels.Set(e.Pod.Labels)) || e.Was != nil && c.selector.Matches(labels.Set(e.Was.Labels)) {
			return true
		}
	}
	return false
}
