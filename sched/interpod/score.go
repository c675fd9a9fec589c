package interpod

import (
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-dev/knarr/sched"
)

// A pod that requires company is taken to prefer, with this weight, to get
// more of it.
const requireWeight = 1

// score adds up what the pod thinks of the pods near each node, and they of
// it.
func score(p *sched.Pod, c *sched.Cluster, nodes []*sched.Node, scores []int64) {
	sums := opinions{}
	namespace := spaceLabels(p, c.Objects)
	for n := range c.Affine() {
		if n.Node == nil {
			continue
		}
		for _, other := range n.Affine {
			for i := range other.Require {
				sums.add(&other.Require[i], requireWeight, p.Pod, namespace, n)
			}
			for i := range other.Prefer {
				sums.add(&other.Prefer[i], other.Prefer[i].Weight, p.Pod, namespace, n)
			}
		}
	}
	prefer := byName(p.Prefer, c.Objects)
	if len(prefer) > 0 {
		for g := range c.Groups("") {
			sums.addGroup(prefer, g)
		}
	}
	if len(sums) == 0 {
		return
	}
	for i, n := range nodes {
		for key, values := range sums {
			if value, ok := n.Labels[key]; ok {
				scores[i] += values[value]
			}
		}
	}
	span(scores)
}

// opinions are sums of weights, by label and value.
type opinions map[string]map[string]int64

// add counts what a pod on n thinks of the incoming one.
func (o opinions) add(t *sched.Term, weight int64, of *corev1.Pod, namespace labels.Set, n *sched.Node) {
	if t.Matches(of, namespace) {
		o.weigh(t.TopologyKey, weight, n)
	}
}

// addGroup counts what the incoming pod thinks of a group.
func (o opinions) addGroup(prefer []sched.Term, g *sched.Group) {
	for i := range prefer {
		t := &prefer[i]
		if !t.Selects(g.Namespace, g.Labels, nil) {
			continue
		}
		for n, pods := range g.On {
			if n.Node != nil {
				o.weigh(t.TopologyKey, t.Weight*int64(pods), n)
			}
		}
	}
}

func (o opinions) weigh(key string, weight int64, n *sched.Node) {
	value, ok := n.Labels[key]
	if !ok {
		return
	}
	if o[key] == nil {
		o[key] = map[string]int64{}
	}
	o[key][value] += weight
}

// span maps the lowest score to 0 and the highest to 100.
func span(scores []int64) {
	least, most := int64(math.MaxInt64), int64(math.MinInt64)
	for _, s := range scores {
		least, most = min(least, s), max(most, s)
	}
	if least == most {
		clear(scores)
		return
	}
	for i, s := range slices.Clone(scores) {
		scores[i] = int64(100 * (float64(s-least) / float64(most-least)))
	}
}
