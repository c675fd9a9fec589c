package disruption

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/ctrl"
)

// Stale takes back from pods that somebody is about to delete them, when
// nobody has for two minutes.
var Stale = ctrl.Controller[*corev1.Pod, doomed]{
	Name:    "disruption-controller/stale",
	Account: "disruption-controller",
	Source:  "controllermanager",
	Writes:  []ctrl.Write{ctrl.May(&corev1.Pod{}, ctrl.Patch)},
	Heeds:   func(p *corev1.Pod) bool { return doom(p) != nil },
	Gather:  func(w ctrl.World, p *corev1.Pod) doomed { return doomed{p, w.Now} },
	Decide:  revoke,
}.Erase()

// doomed is a pod, and what time it is.
type doomed struct {
	*corev1.Pod

	now time.Time
}

// doom is the condition of a pod that may become stale. A kubelet takes what
// time it needs, and what has ended is left as it is.
func doom(p *corev1.Pod) *corev1.PodCondition {
	c := ctrl.PodCondition(p, corev1.DisruptionTarget)
	if c == nil || c.Status != corev1.ConditionTrue || c.Reason == corev1.PodReasonTerminationByKubelet || !ctrl.Active(p) {
		return nil
	}
	return c
}

func revoke(in doomed) ctrl.Plan {
	c := doom(in.Pod)
	if c == nil {
		return ctrl.Plan{}
	}
	if left := c.LastTransitionTime.Add(patience).Sub(in.now); left > 0 {
		return ctrl.Plan{After: left}
	}
	status := corev1.PodStatus{ObservedGeneration: in.Generation, Conditions: []corev1.PodCondition{{
		Type: c.Type, Status: corev1.ConditionFalse, ObservedGeneration: in.Generation, LastTransitionTime: metav1.NewTime(in.now.Truncate(time.Second)),
	}}}
	patch := map[string]any{"metadata": map[string]any{"uid": in.UID, "resourceVersion": in.ResourceVersion}, "status": status}
	return ctrl.Plan{Do: []ctrl.Action{{Verb: ctrl.Patch, Obj: in.Pod, Sub: "status", Patch: ctrl.JSON(patch)}}}
}
