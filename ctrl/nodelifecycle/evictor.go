package nodelifecycle

import (
	"cmp"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/knarr-dev/knarr/ctrl"
)

// How fast nodes of one zone are tainted. A zone in which most nodes fail has
// probably lost its network, not its nodes: there it goes slowly, or in a
// small zone not at all. Where every zone fails it is us who lost ours.
const (
	every      = 10 * time.Second
	slowly     = 100 * time.Second
	small      = 50   // nodes
	mostFailed = 0.55 // of a zone, and more than two nodes
)

// Evictor adds to nodes that are not ready the taints that evict pods.
var Evictor = ctrl.Overseer[zones]{
	Name:    "node-lifecycle-controller/evictor",
	Account: "node-controller",
	Source:  "node-controller",
	Reads:   []ctrl.Read{ctrl.Watch(wakeForNode)},
	Writes:  []ctrl.Write{ctrl.May(&corev1.Node{}, ctrl.Update)},
	Gather:  gatherZones,
	Decide:  decideZones,
}.Erase()

// wakeForNode wakes for what the decision reads of a node, not for its heartbeats.
func wakeForNode(_ ctrl.World, old, n *corev1.Node) []ctrl.Key {
	if old != nil && n != nil && status(old) == status(n) && zoneOf(old) == zoneOf(n) &&
		excluded(old) == excluded(n) && equality.Semantic.DeepEqual(old.Spec.Taints, n.Spec.Taints) {
		return nil
	}
	return []ctrl.Key{{}}
}

type zones struct {
	of   map[string][]*corev1.Node
	last map[string]time.Time // when a node of the zone was tainted last
	now  time.Time
}

func gatherZones(w ctrl.World) zones {
	in := zones{of: map[string][]*corev1.Node{}, now: w.Now}
	in.last, _ = w.Memo.(map[string]time.Time)
	nodes := ctrl.All[*corev1.Node](w)
	slices.SortFunc(nodes, func(a, b *corev1.Node) int { return cmp.Compare(a.Name, b.Name) })
	for _, n := range nodes {
		in.of[zoneOf(n)] = append(in.of[zoneOf(n)], n)
	}
	return in
}

func zoneOf(n *corev1.Node) string {
	return n.Labels[corev1.LabelTopologyRegion] + "/" + n.Labels[corev1.LabelTopologyZone]
}

func excluded(n *corev1.Node) bool {
	_, ok := n.Labels["node.kubernetes.io/exclude-disruption"]
	return ok
}

func status(n *corev1.Node) corev1.ConditionStatus {
	if c := condition(n, corev1.NodeReady); c != nil {
		return c.Status
	}
	return ""
}

func decideZones(in zones) ctrl.Plan {
	plan := ctrl.Plan{}
	last := maps.Clone(in.last)
	if last == nil {
		last = map[string]time.Time{}
	}
	blind := in.blind()
	for _, zone := range slices.Sorted(maps.Keys(in.of)) {
		pace, goes := pace(in.of[zone])
		for _, n := range in.of[zone] {
			want := evicts(n)
			if blind {
				want = ""
			}
			had := tainted(n, corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute) || tainted(n, corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute)
			switch wait := pace - in.now.Sub(last[zone]); {
			case want == "" && !had, want != "" && tainted(n, want, corev1.TaintEffectNoExecute):
			case want != "" && !had && !goes:
			case want != "" && !had && wait > 0:
				plan.After = ctrl.Soonest(plan.After, wait)
			default:
				plan.Do = append(plan.Do, ctrl.Action{Verb: ctrl.Update, Obj: withTaint(n, want, in.now)})
				if want != "" && !had {
					last[zone] = in.now
				}
			}
		}
	}
	plan.Memo = last
	return plan
}

// evicts is the taint that the node should evict by, empty for none.
func evicts(n *corev1.Node) string {
	switch status(n) {
	case corev1.ConditionFalse:
		return corev1.TaintNodeNotReady
	case corev1.ConditionUnknown:
		return corev1.TaintNodeUnreachable
	case corev1.ConditionTrue:
	}
	return ""
}

// withTaint is n with that one of the two taints, or with none of them.
func withTaint(n *corev1.Node, key string, now time.Time) *corev1.Node {
	out := *n
	out.Spec.Taints = slices.DeleteFunc(slices.Clone(n.Spec.Taints), func(t corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectNoExecute && (t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable)
	})
	if key != "" {
		out.Spec.Taints = append(out.Spec.Taints, taint(key, corev1.TaintEffectNoExecute, now))
	}
	return &out
}

func counts(nodes []*corev1.Node) (ready, not int) {
	for _, n := range nodes {
		switch {
		case excluded(n):
		case status(n) == corev1.ConditionTrue:
			ready++
		default:
			not++
		}
	}
	return ready, not
}

// blind reports whether no node at all can be seen.
func (in zones) blind() bool {
	some := false
	for _, nodes := range in.of {
		ready, not := counts(nodes)
		if ready > 0 {
			return false
		}
		some = some || not > 0
	}
	return some
}

// pace is the least time between two taints in a zone, false for no taints.
func pace(nodes []*corev1.Node) (time.Duration, bool) {
	ready, not := counts(nodes)
	switch {
	case ready == 0 || not <= 2 || float64(not)/float64(ready+not) < mostFailed:
		return every, true
	case ready+not > small:
		return slowly, true
	}
	return 0, false
}
