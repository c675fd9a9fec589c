// Package podgc deletes the pods that nobody else will: those of nodes that
// are gone or out of service, those being deleted that never had a node, and
// of the finished ones the oldest, where there are too many.
package podgc

import (
	"cmp"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/ctrl"
)

const (
	period     = 20 * time.Second
	quarantine = 40 * time.Second // that a node must be gone for: it may be on its way into the cache
)

// New is the pod garbage collector. Of finished pods it leaves threshold,
// all where that is 0.
func New(threshold int) ctrl.Erased {
	return ctrl.Overseer[input]{
		Name:    "pod-garbage-collector-controller",
		Account: "pod-garbage-collector",
		Reads:   []ctrl.Read{ctrl.Watch[*corev1.Pod](nil), ctrl.Watch[*corev1.Node](nil)},
		Writes: []ctrl.Write{
			ctrl.May(&corev1.Pod{}, ctrl.Patch, ctrl.Delete),
			ctrl.May(&corev1.Node{}, ctrl.CheckGone),
		},
		Gather: func(w ctrl.World) input { return gather(w, threshold) },
		Decide: decide,
	}.Erase()
}

type input struct {
	finished  []*corev1.Pod            // more than threshold, oldest first
	leaving   []*corev1.Pod            // on no node, or on one out of service
	orphans   map[string][]*corev1.Pod // by the node that is missing
	threshold int
	missed    map[string]time.Time // since when each node is missing
	now       time.Time
}

func gather(w ctrl.World, threshold int) input {
	in := input{threshold: threshold, orphans: map[string][]*corev1.Pod{}, now: w.Now}
	in.missed, _ = w.Memo.(map[string]time.Time)
	for _, p := range ctrl.All[*corev1.Pod](w) {
		node := ctrl.Get[*corev1.Node](w, "", p.Spec.NodeName)
		switch {
		case p.Spec.NodeName != "" && node == nil:
			in.orphans[p.Spec.NodeName] = append(in.orphans[p.Spec.NodeName], p)
		case p.DeletionTimestamp != nil && (node == nil || outOfService(node)):
			in.leaving = append(in.leaving, p)
		case ctrl.Finished(p):
			in.finished = append(in.finished, p)
		}
	}
	return in
}

func outOfService(n *corev1.Node) bool {
	ready := slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
	return !ready && slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
}

func decide(in input) ctrl.Plan {
	plan := ctrl.Plan{After: period}
	for _, p := range slices.Concat(in.surplus(), in.leaving) {
		plan.Do = append(plan.Do, in.drop(p, "", "")...)
	}
	missed := map[string]time.Time{}
	for _, node := range slices.Sorted(maps.Keys(in.orphans)) {
		since, known := in.missed[node]
		if !known {
			since = in.now
		}
		missed[node] = since
		if in.now.Sub(since) < quarantine {
			continue
		}
		plan.Do = append(plan.Do, ctrl.Action{Verb: ctrl.CheckGone, Obj: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}})
		for _, p := range in.orphans[node] {
			plan.Do = append(plan.Do, in.drop(p, "DeletionByPodGC", "PodGC: node no longer exists")...)
		}
	}
	plan.Memo = missed
	return plan
}

// surplus are the finished pods that are too many: the evicted first, since
// no controller counts on them, then the oldest.
func (in input) surplus() []*corev1.Pod {
	n := len(in.finished) - in.threshold
	if in.threshold <= 0 || n <= 0 {
		return nil
	}
	evicted := func(p *corev1.Pod) int {
		if p.Status.Phase == corev1.PodFailed && p.Status.Reason == "Evicted" {
			return 0
		}
		return 1
	}
	slices.SortFunc(in.finished, func(a, b *corev1.Pod) int {
		return cmp.Or(cmp.Compare(evicted(a), evicted(b)), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return in.finished[:n]
}

// drop deletes p at once. A pod that no node will ever report about again is
// said to have failed before, for those who count.
func (in input) drop(p *corev1.Pod, reason, message string) (do []ctrl.Action) {
	if !ctrl.Finished(p) {
		do = append(do, ctrl.Disrupt(p, corev1.PodFailed, reason, message, in.now.Truncate(time.Second)))
	}
	if g := p.DeletionGracePeriodSeconds; g != nil && *g == 0 {
		return do // nothing but a finalizer holds it
	}
	return append(do, ctrl.Action{Verb: ctrl.Delete, Obj: p, Grace: new(int64(0))})
}
