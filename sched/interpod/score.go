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
	if prefer := byName(p.Prefer, c.Objects); len(prefer) > 0 {
		for _, n := range c.Nodes() {
			for _, other := range n.Pods {
				for i := range prefer {
					sums.add(&prefer[i], prefer[i].Weight, other.Pod, nil, n)
				}
			}
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

func (o opinions) add(t *sched.Term, weight int64, of *corev1.Pod, namespace labels.Set, n *sched.Node) {
	value, ok := n.Labels[t.TopologyKey]
	if !ok || !t.Matches(of, namespace) {
		return
	}
	if o[t.TopologyKey] == nil {
		o[t.TopologyKey] = map[string]int64{}
	}
	o[t.TopologyKey][value] += weight
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
