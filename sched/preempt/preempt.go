// Package preempt makes room for a pod that fits nowhere by choosing less
// important pods that have to go. It only chooses: the loop evicts them.
package preempt

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/sched"
)

// Plugin is the preemption plugin.
var Plugin = sched.Plugin[struct{}]{
	Name:  "DefaultPreemption",
	Evict: evict,
	Reads: []apis.Object{&policyv1.PodDisruptionBudget{}},
	// Where all are equally important no one can be evicted.
	ReadsFor: func(p *sched.Pod) bool { return p.Priority != 0 },
}.Erase()

// Of many nodes only a part is tried: enough to find a good one.
const (
	leastTried = 100
	partTried  = 10 // percent
)

const (
	unhelpful  = "Preemption is not helpful for scheduling"
	victimless = "No preemption victims found for incoming pod"
	never      = "preemption: not eligible due to preemptionPolicy=Never."
	underway   = "preemption: not eligible due to a terminating pod on the nominated node."
)

func evict(t *sched.Trial, dice func(int) int) sched.Eviction {
	if why := ineligible(t); why != "" {
		return sched.Eviction{Why: why, Keep: true}
	}
	var where []*sched.Node
	for _, r := range t.Rejected {
		if !r.Final {
			where = append(where, r.Node)
		}
	}
	all := len(t.Cluster.Nodes())
	if len(where) == 0 {
		return sched.Eviction{Why: "preemption: " + sched.Tally(all, nil, unhelpful)}
	}
	options, rejected := tryAll(t, where, dice(len(where)))
	if len(options) == 0 {
		return sched.Eviction{Why: "preemption: " + sched.Tally(all, rejected, unhelpful)}
	}
	best := slices.MinFunc(options, cheaper)
	return sched.Eviction{Node: best.node, Victims: best.victims}
}

// ineligible tells why the pod may evict no one. While those that it has
// already evicted from its node are still going, it must wait for them,
// unless the node has become impossible for other reasons.
func ineligible(t *sched.Trial) string {
	if policy := t.Pod.Spec.PreemptionPolicy; policy != nil && *policy == corev1.PreemptNever {
		return never
	}
	claimed := t.Cluster.Node(t.Cluster.Nomination(t.Pod.UID))
	if claimed == nil || lost(t, claimed) {
		return ""
	}
	for _, p := range claimed.Pods {
		if p.Priority < t.Pod.Priority && evicted(p.Pod) {
			return underway
		}
	}
	return ""
}

func lost(t *sched.Trial, n *sched.Node) bool {
	if t.No != "" {
		return true
	}
	for _, r := range t.Rejected {
		if r.Node == n {
			return r.Final
		}
	}
	return t.Elsewhere != ""
}

func evicted(p *corev1.Pod) bool {
	return p.DeletionTimestamp != nil && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == corev1.PodReasonPreemptionByScheduler
	})
}

// tryAll tries the nodes in turn, beginning anywhere, until it has enough
// options, one of which breaks no budget.
func tryAll(t *sched.Trial, where []*sched.Node, from int) (options []option, rejected []sched.Rejection) {
	budgets := newBudgets(t.Cluster.Objects)
	want := min(len(where), max(leastTried, len(where)*partTried/100))
	harmless := false
	for i := range where {
		n := where[(from+i)%len(where)]
		o, v := try(t, n, budgets)
		if !v.Fits() {
			rejected = append(rejected, sched.Rejection{Node: n, Verdict: v})
			continue
		}
		options = append(options, o)
		if harmless = harmless || o.broken == 0; harmless && len(options) >= want {
			break
		}
	}
	return options, rejected
}

// try finds the fewest pods that have to leave n for the pod to fit: all that
// are less important leave, and come back as long as it still fits, those
// first whose leaving would break a budget, the more important before the
// less.
func try(t *sched.Trial, n *sched.Node, budgets []budget) (option, sched.Verdict) {
	var left []*sched.Pod
	for _, p := range n.Pods {
		if p.Priority < t.Pod.Priority {
			left = append(left, p)
		}
	}
	if len(left) == 0 {
		return option{}, sched.Verdict{Why: []string{victimless}, Final: true}
	}
	slices.SortStableFunc(left, moreImportant)
	m := n.Clone()
	for _, p := range left {
		m.Remove(p)
	}
	if v := t.TryWithout(m, left); !v.Fits() {
		return option{}, v
	}
	o := option{node: n}
	protected, free := split(left, budgets)
	for i, p := range slices.Concat(protected, free) {
		rest := slices.DeleteFunc(slices.Clone(left), func(q *sched.Pod) bool { return q == p })
		m.Add(p)
		if t.TryWithout(m, rest).Fits() {
			left = rest
			continue
		}
		m.Remove(p)
		o.victims = append(o.victims, p)
		if i < len(protected) {
			o.broken++
		}
	}
	slices.SortStableFunc(o.victims, moreImportant)
	return o, sched.Fits
}
