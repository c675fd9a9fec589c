// Package nodelifecycle watches over nodes: one that is not heard of is said
// to be Unknown, what its conditions say is put on it as taints, and its pods
// are said not to be ready. Evictor adds the taints that drive pods away, no
// faster than a zone may bear; package tainteviction drives them.
package nodelifecycle

import (
	"maps"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/ctrl"
)

const (
	grace        = 50 * time.Second // without a sign of life
	startupGrace = 60 * time.Second // the same for a node that never gave one
)

// Controller is the node lifecycle controller, but for evictions.
var Controller = ctrl.Controller[*corev1.Node, input]{
	Name:    "node-lifecycle-controller",
	Account: "node-controller",
	Source:  "node-controller",
	Workers: 8,
	Reads: []ctrl.Read{
		ctrl.Watch(wakeForLease).Only(ctrl.Filter{Namespace: corev1.NamespaceNodeLease}),
		ctrl.Watch(wakeForPod, ctrl.ByNode),
	},
	Writes: []ctrl.Write{
		ctrl.May(&corev1.Node{}, ctrl.Update, ctrl.UpdateStatus),
		ctrl.May(&corev1.Pod{}, ctrl.Patch),
	},
	Gather: gather,
	Decide: decide,
}.Erase()

func wakeForLease(_ ctrl.World, _, l *coordinationv1.Lease) []ctrl.Key {
	if l == nil {
		return nil
	}
	return []ctrl.Key{{Name: l.Name}}
}

// wakeForPod wakes the node of a pod that came to it.
func wakeForPod(_ ctrl.World, old, p *corev1.Pod) []ctrl.Key {
	if p == nil || p.Spec.NodeName == "" || old != nil && old.Spec.NodeName == p.Spec.NodeName {
		return nil
	}
	return []ctrl.Key{{Name: p.Spec.NodeName}}
}

type input struct {
	node  *corev1.Node
	lease *coordinationv1.Lease // nil where there is none
	ready []*corev1.Pod         // that say so, though their node is Unknown
	seen  sight
	now   time.Time
}

// A sight is the last sign of life that was seen, and when it was seen by our
// own clock: the node's may be wrong.
type sight struct {
	at        time.Time
	heartbeat metav1.Time
	renewed   metav1.MicroTime
}

func gather(w ctrl.World, n *corev1.Node) input {
	in := input{node: n, lease: ctrl.Get[*coordinationv1.Lease](w, corev1.NamespaceNodeLease, n.Name), now: w.Now}
	in.seen, _ = w.Memo.(sight)
	for _, p := range ctrl.Find[*corev1.Pod](w, ctrl.ByNode, n.Name) {
		if ctrl.Ready(p) {
			in.ready = append(in.ready, p)
		}
	}
	return in
}

func decide(in input) ctrl.Plan {
	next, patience := in.look()
	n := in.node.DeepCopy()
	plan, gone := ctrl.Plan{}, false
	if in.seen.at.IsZero() {
		plan.Do = append(plan.Do, ctrl.Tell(in.node, "RegisteredNode: Registered Node %s in Controller", n.Name))
	}
	if wait := patience - in.now.Sub(next.at); wait >= 0 {
		plan.After = wait + time.Millisecond // past it, not at it
	} else if lost(n, in.now) {
		// The taints follow at once, from the node as the server has it then.
		plan.Do = append(plan.Do, ctrl.Action{Verb: ctrl.UpdateStatus, Obj: n, Then: func(done apis.Object) []ctrl.Action {
			return marks(done.(*corev1.Node), in.now)
		}})
		if c := condition(in.node, corev1.NodeReady); c != nil && c.Status == corev1.ConditionTrue {
			plan.Do = append(plan.Do, ctrl.Tell(in.node, "NodeNotReady: Node %s status is now: NodeNotReady", n.Name))
		}
		gone, next.heartbeat = true, condition(n, corev1.NodeReady).LastHeartbeatTime
	}
	if c := condition(n, corev1.NodeReady); c != nil && c.Status == corev1.ConditionUnknown {
		for _, p := range in.ready {
			plan.Do = append(plan.Do, unready(p, in.now)...)
		}
	}
	if !gone {
		plan.Do = append(plan.Do, marks(in.node, in.now)...)
	}
	plan.Memo = next
	return plan
}

// look is what is seen of the node now, and how long it may be silent.
func (in input) look() (next sight, patience time.Duration) {
	next, patience = in.seen, grace
	ready := condition(in.node, corev1.NodeReady)
	switch {
	case ready == nil:
		patience = startupGrace
		if next.at.IsZero() {
			next.at = in.node.CreationTimestamp.Time
		}
	case next.at.IsZero() || !next.heartbeat.Equal(&ready.LastHeartbeatTime):
		next.at, next.heartbeat = in.now, ready.LastHeartbeatTime
	}
	if in.lease != nil && in.lease.Spec.RenewTime != nil && next.renewed.Before(in.lease.Spec.RenewTime) {
		next.at, next.renewed = in.now, *in.lease.Spec.RenewTime
	}
	return next, patience
}

func condition(n *corev1.Node, t corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range n.Status.Conditions {
		if n.Status.Conditions[i].Type == t {
			return &n.Status.Conditions[i]
		}
	}
	return nil
}

// lost makes Unknown what only the kubelet knows, and reports whether it was not.
func lost(n *corev1.Node, now time.Time) (changed bool) {
	at := metav1.NewTime(now.Truncate(time.Second))
	for _, t := range []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		switch c := condition(n, t); {
		case c == nil:
			n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{
				Type: t, Status: corev1.ConditionUnknown, Reason: "NodeStatusNeverUpdated", Message: "Kubelet never posted node status.",
				LastHeartbeatTime: n.CreationTimestamp, LastTransitionTime: at,
			})
			changed = true
		case c.Status != corev1.ConditionUnknown:
			c.Status, c.Reason, c.Message = corev1.ConditionUnknown, "NodeStatusUnknown", "Kubelet stopped posting node status."
			c.LastTransitionTime = at
			changed = true
		}
	}
	return changed
}

// unready takes p out of its services: nobody knows how it fares.
func unready(p *corev1.Pod, now time.Time) []ctrl.Action {
	c := *ctrl.PodCondition(p, corev1.PodReady)
	c.Status, c.LastTransitionTime = corev1.ConditionFalse, metav1.NewTime(now.Truncate(time.Second))
	return []ctrl.Action{
		ctrl.PatchStatus(p, corev1.PodStatus{Conditions: []corev1.PodCondition{c}}),
		ctrl.Complain(p, "NodeNotReady: Node is not ready"),
	}
}

// taintFor is the taint that a condition means when it has that status.
var taintFor = map[corev1.NodeConditionType]map[corev1.ConditionStatus]string{
	corev1.NodeReady: {
		corev1.ConditionFalse:   corev1.TaintNodeNotReady,
		corev1.ConditionUnknown: corev1.TaintNodeUnreachable,
	},
	corev1.NodeMemoryPressure:     {corev1.ConditionTrue: corev1.TaintNodeMemoryPressure},
	corev1.NodeDiskPressure:       {corev1.ConditionTrue: corev1.TaintNodeDiskPressure},
	corev1.NodePIDPressure:        {corev1.ConditionTrue: corev1.TaintNodePIDPressure},
	corev1.NodeNetworkUnavailable: {corev1.ConditionTrue: corev1.TaintNodeNetworkUnavailable},
}

// ours are the taints with effect NoSchedule that follow from the node's state alone.
var ours = map[string]bool{
	corev1.TaintNodeNotReady: true, corev1.TaintNodeUnreachable: true, corev1.TaintNodeMemoryPressure: true, corev1.TaintNodeDiskPressure: true,
	corev1.TaintNodePIDPressure: true, corev1.TaintNodeNetworkUnavailable: true, corev1.TaintNodeUnschedulable: true,
}

// doubled are labels that were called otherwise once.
var doubled = map[string]string{
	corev1.LabelOSStable:   "beta.kubernetes.io/os",
	corev1.LabelArchStable: "beta.kubernetes.io/arch",
}

// marks gives n the taints and labels that it should have, where it has not.
func marks(n *corev1.Node, now time.Time) []ctrl.Action {
	var want []string
	for _, c := range n.Status.Conditions {
		if key := taintFor[c.Type][c.Status]; key != "" {
			want = append(want, key)
		}
	}
	if n.Spec.Unschedulable {
		want = append(want, corev1.TaintNodeUnschedulable)
	}
	out := *n
	out.Spec.Taints, out.Labels = nil, maps.Clone(n.Labels)
	changed := false
	for _, t := range n.Spec.Taints {
		if t.Effect == corev1.TaintEffectNoSchedule && ours[t.Key] && !slices.Contains(want, t.Key) {
			changed = true
			continue
		}
		out.Spec.Taints = append(out.Spec.Taints, t)
	}
	for _, key := range want {
		if !tainted(n, key, corev1.TaintEffectNoSchedule) {
			out.Spec.Taints = append(out.Spec.Taints, taint(key, corev1.TaintEffectNoSchedule, now))
			changed = true
		}
	}
	for label, other := range doubled {
		if v, ok := n.Labels[label]; ok && n.Labels[other] != v {
			out.Labels[other] = v
			changed = true
		}
	}
	if !changed {
		return nil
	}
	return []ctrl.Action{{Verb: ctrl.Update, Obj: &out}}
}

func taint(key string, effect corev1.TaintEffect, now time.Time) corev1.Taint {
	return corev1.Taint{Key: key, Effect: effect, TimeAdded: &metav1.Time{Time: now.Truncate(time.Second)}}
}

func tainted(n *corev1.Node, key string, effect corev1.TaintEffect) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == key && t.Effect == effect })
}
