package spread

import (
	"math"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-dev/knarr/sched"
)

// score favours domains with few pods of the group.
func score(p *sched.Pod, c *sched.Cluster, nodes []*sched.Node, scores []int64) {
	own := len(p.Spec.TopologySpreadConstraints) > 0
	var soft []constraint
	if own {
		soft = constraints(p.Pod, corev1.ScheduleAnyway)
	} else if selector := group(p, c.Objects); !selector.Empty() {
		for _, d := range defaults {
			d.selector = selector
			soft = append(soft, d)
		}
	}
	if len(soft) == 0 {
		return
	}
	// A node that lies outside the domains of a pod's own constraints is the
	// worst; the defaults are not so strict.
	ignored := make([]bool, len(nodes))
	rated := 0
	for i, n := range nodes {
		if ignored[i] = own && !labelled(n, soft); !ignored[i] {
			rated++
		}
	}
	sum := make([]float64, len(nodes))
	demands := sched.Demands(p.Pod)
	var count sched.Count
	for i := range soft {
		if i == 0 || own { // the defaults count the same pods
			count = soft[i].count(c, p)
		}
		t := &tally{constraint: &soft[i], pod: p, demands: &demands, strict: own, all: soft, count: count}
		t.add(nodes, ignored, rated, sum)
	}
	for i := range sum {
		scores[i] = int64(math.Round(sum[i]))
	}
	invert(scores, ignored)
}

// A tally counts the pods in the domains of one constraint.
type tally struct {
	*constraint

	pod     *sched.Pod
	demands *sched.NodeChoice
	strict  bool
	all     []constraint
	count   sched.Count
}

// add adds to sum what each node's domain counts for. Domains weigh the more
// the more there are of them, so that zones are not drowned by nodes.
func (t *tally) add(nodes []*sched.Node, ignored []bool, rated int, sum []float64) {
	size := rated
	var domains map[string]int
	if t.key != corev1.LabelHostname {
		domains = t.domains(nodes, ignored)
		size = len(domains)
	}
	weight := math.Log(float64(size + 2))
	for i, n := range nodes {
		domain, ok := n.Labels[t.key]
		if !ok || ignored[i] {
			continue
		}
		count := domains[domain]
		if domains == nil {
			count = t.count.On(n)
		}
		sum[i] += float64(count)*weight + float64(t.skew-1)
	}
}

// domains counts, all over the cluster, in the domains of these nodes.
func (t *tally) domains(nodes []*sched.Node, ignored []bool) map[string]int {
	domains := map[string]int{}
	for i, n := range nodes {
		if !ignored[i] {
			domains[n.Labels[t.key]] = 0
		}
	}
	for _, n := range t.count.Nodes {
		if t.strict && !labelled(n, t.all) {
			continue
		}
		domain := n.Labels[t.key]
		if _, wanted := domains[domain]; wanted && t.includes(n, t.pod, t.demands) {
			domains[domain] += t.count.On(n)
		}
	}
	return domains
}

// invert makes the fewest pods the best score, and the ignored the worst.
func invert(scores []int64, ignored []bool) {
	least, most := int64(math.MaxInt64), int64(0)
	for i, s := range scores {
		if !ignored[i] {
			least, most = min(least, s), max(most, s)
		}
	}
	for i, s := range scores {
		switch {
		case ignored[i]:
			scores[i] = 0
		case most == 0:
			scores[i] = 100
		default:
			scores[i] = 100 * (most + least - s) / most
		}
	}
}

// group selects the pods that p belongs with: those of the services that
// select it, and of the controller that owns it.
func group(p *sched.Pod, o sched.Objects) labels.Selector {
	set := labels.Set{}
	for svc := range sched.In[*corev1.Service](o, p.Namespace) {
		if svc.Spec.Selector != nil && labels.SelectorFromSet(svc.Spec.Selector).Matches(labels.Set(p.Labels)) {
			set = labels.Merge(set, svc.Spec.Selector)
		}
	}
	owner := metav1.GetControllerOfNoCopy(p)
	if owner == nil {
		return set.AsSelector()
	}
	var more *metav1.LabelSelector
	switch owner.APIVersion + " " + owner.Kind {
	case "v1 ReplicationController":
		if rc, ok := sched.Get[*corev1.ReplicationController](o, p.Namespace, owner.Name); ok {
			set = labels.Merge(set, rc.Spec.Selector)
		}
	case "apps/v1 ReplicaSet":
		if rs, ok := sched.Get[*appsv1.ReplicaSet](o, p.Namespace, owner.Name); ok {
			more = rs.Spec.Selector
		}
	case "apps/v1 StatefulSet":
		if ss, ok := sched.Get[*appsv1.StatefulSet](o, p.Namespace, owner.Name); ok {
			more = ss.Spec.Selector
		}
	}
	selector := set.AsSelector()
	if more != nil {
		rules, _ := sched.Selector(more).Requirements()
		selector = selector.Add(slices.Clone(rules)...)
	}
	return selector
}
