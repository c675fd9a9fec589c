// Package tainteviction deletes the pods of a node that do not tolerate its
// NoExecute taints, or not for longer than they have.
package tainteviction

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/knarr-dev/knarr/ctrl"
)

// Controller is the taint eviction controller.
var Controller = ctrl.Controller[*corev1.Pod, input]{
	Name:    "taint-eviction-controller",
	Account: "node-controller",
	Workers: 8,
	Reads: []ctrl.Read{
		ctrl.Watch[*corev1.Pod](nil, ctrl.ByNode),
		ctrl.Watch(wake),
	},
	Writes: []ctrl.Write{ctrl.May(&corev1.Pod{}, ctrl.Patch, ctrl.Delete)},
	Heeds:  func(p *corev1.Pod) bool { return p.Spec.NodeName != "" && p.DeletionTimestamp == nil },
	Gather: func(w ctrl.World, p *corev1.Pod) input {
		in := input{pod: p, now: w.Now}
		in.since, _ = w.Memo.(time.Time)
		if n := ctrl.Get[*corev1.Node](w, "", p.Spec.NodeName); n != nil {
			in.taints = noExecute(n)
		}
		return in
	},
	Decide: decide,
}.Erase()

// wake wakes the pods of a node whose taints changed.
func wake(w ctrl.World, old, n *corev1.Node) (keys []ctrl.Key) {
	if n == nil || old != nil && equality.Semantic.DeepEqual(noExecute(old), noExecute(n)) {
		return nil
	}
	for _, p := range ctrl.Find[*corev1.Pod](w, ctrl.ByNode, n.Name) {
		keys = append(keys, ctrl.KeyOf(p))
	}
	return keys
}

func noExecute(n *corev1.Node) (out []corev1.Taint) {
	for _, t := range n.Spec.Taints {
		if t.Effect == corev1.TaintEffectNoExecute {
			out = append(out, t)
		}
	}
	return out
}

type input struct {
	pod    *corev1.Pod
	taints []corev1.Taint // of its node, those that evict
	since  time.Time      // when its time began to run; zero where it does not
	now    time.Time
}

func decide(in input) ctrl.Plan {
	left, runs := in.patience()
	switch {
	case in.pod.DeletionTimestamp != nil:
		return ctrl.Plan{}
	case !runs && in.since.IsZero():
		return ctrl.Plan{}
	case !runs:
		return ctrl.Plan{Do: []ctrl.Action{ctrl.Tell(in.pod, "TaintManagerEviction: Cancelling deletion of Pod %v", ctrl.KeyOf(in.pod))}}
	}
	since := in.since
	if since.IsZero() {
		since = in.begin()
	}
	if wait := left - in.now.Sub(since); wait > 0 {
		return ctrl.Plan{After: wait, Memo: since}
	}
	return ctrl.Plan{Memo: since, Do: []ctrl.Action{
		ctrl.Tell(in.pod, "TaintManagerEviction: Marking for deletion Pod %v", ctrl.KeyOf(in.pod)),
		ctrl.Disrupt(in.pod, "", "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", in.now.Truncate(time.Second)),
		{Verb: ctrl.Delete, Obj: in.pod},
	}}
}

// begin is when the pod came under the last of the taints, as far as they say
// when they were put: so that the time does not begin anew with us.
func (in input) begin() time.Time {
	begin := in.pod.CreationTimestamp.Time
	for _, t := range in.taints {
		if t.TimeAdded == nil {
			return in.now
		}
		if t.TimeAdded.After(begin) {
			begin = t.TimeAdded.Time
		}
	}
	return begin
}

// patience is how long the pod bears with the taints altogether, false where
// for ever.
func (in input) patience() (least time.Duration, runs bool) {
	for _, t := range in.taints {
		bears := false
		for _, tol := range in.pod.Spec.Tolerations {
			if !tolerates(tol, t) {
				continue
			}
			bears = true
			if s := tol.TolerationSeconds; s != nil {
				d := time.Duration(max(0, *s)) * time.Second
				if !runs || d < least {
					least, runs = d, true
				}
			}
		}
		if !bears {
			return 0, true
		}
	}
	return least, runs
}

func tolerates(tol corev1.Toleration, t corev1.Taint) bool {
	if tol.Effect != "" && tol.Effect != t.Effect || tol.Key != "" && tol.Key != t.Key {
		return false
	}
	return slices.Contains([]corev1.TolerationOperator{"", corev1.TolerationOpEqual}, tol.Operator) && tol.Value == t.Value ||
		tol.Operator == corev1.TolerationOpExists
}
