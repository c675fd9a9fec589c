// Package disruption keeps the status of disruption budgets: of how many pods
// evictions may still rob who needs them.
package disruption

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/ctrl"
)

// patience is how long a pod that was evicted may take to be deleted.
const patience = 2 * time.Minute

// Controller counts the healthy pods of each budget.
var Controller = ctrl.Controller[*policyv1.PodDisruptionBudget, input]{
	Name:   "disruption-controller",
	Source: "controllermanager",
	Reads: []ctrl.Read{
		ctrl.Watch(wakeForPod),
		scaled(func(s *appsv1.ReplicaSet) *int32 { return s.Spec.Replicas }),
		scaled(func(d *appsv1.Deployment) *int32 { return d.Spec.Replicas }),
		scaled(func(s *appsv1.StatefulSet) *int32 { return s.Spec.Replicas }),
		scaled(func(c *corev1.ReplicationController) *int32 { return c.Spec.Replicas }),
	},
	Writes: []ctrl.Write{ctrl.May(&policyv1.PodDisruptionBudget{}, ctrl.UpdateStatus)},
	Heeds:  outdated,
	Gather: gather,
	Decide: decide,
}.Erase()

// outdated spares a look at what this controller itself has written.
func outdated(b *policyv1.PodDisruptionBudget) bool {
	return b.Status.ObservedGeneration != b.Generation || b.Status.DisruptedPods != nil
}

func selector(b *policyv1.PodDisruptionBudget) labels.Selector { return ctrl.Selector(b.Spec.Selector) }

// wakeForPod wakes the budgets of a pod of which something changed that counts.
func wakeForPod(w ctrl.World, old, p *corev1.Pod) (keys []ctrl.Key) {
	if old != nil && p != nil && ctrl.Ready(old) == ctrl.Ready(p) && (old.DeletionTimestamp == nil) == (p.DeletionTimestamp == nil) &&
		reflect.DeepEqual(old.Labels, p.Labels) && reflect.DeepEqual(old.OwnerReferences, p.OwnerReferences) {
		return nil
	}
	for _, pod := range []*corev1.Pod{old, p} {
		if pod == nil {
			continue
		}
		for _, b := range budgets(w, pod) {
			keys = append(keys, ctrl.KeyOf(b))
		}
	}
	return keys
}

// budgets are those that a pod is about, by name.
func budgets(w ctrl.World, p *corev1.Pod) (found []*policyv1.PodDisruptionBudget) {
	for _, b := range ctrl.In[*policyv1.PodDisruptionBudget](w, p.Namespace) {
		if selector(b).Matches(labels.Set(p.Labels)) {
			found = append(found, b)
		}
	}
	slices.SortFunc(found, byName)
	return found
}

// scaled reads kind T for the budgets of a namespace in which one is scaled.
func scaled[T apis.Object](replicas func(T) *int32) ctrl.Read {
	return ctrl.Read{Kind: reflect.TypeFor[T](), Wakes: func(w ctrl.World, old, obj apis.Object) (keys []ctrl.Key) {
		some := obj
		switch {
		case obj == nil:
			some = old
		case old != nil && wants(replicas(old.(T))) == wants(replicas(obj.(T))):
			return nil
		}
		for _, b := range ctrl.In[*policyv1.PodDisruptionBudget](w, some.GetNamespace()) {
			keys = append(keys, ctrl.KeyOf(b))
		}
		return keys
	}}
}

type input struct {
	budget *policyv1.PodDisruptionBudget
	pods   []*corev1.Pod
	shared map[types.UID]bool // pods of which this is the first of several budgets

	managed  int   // pods that those who own them are to have
	unscaled error // why that is not known

	told memo
	now  time.Time
}

// A memo is what was told of a budget already.
type memo struct {
	none   bool
	failed string
	shared map[types.UID]bool
}

func gather(w ctrl.World, b *policyv1.PodDisruptionBudget) input {
	in := input{budget: b, shared: map[types.UID]bool{}, now: w.Now}
	in.told, _ = w.Memo.(memo)
	picks := selector(b)
	for _, p := range ctrl.In[*corev1.Pod](w, b.Namespace) {
		if picks.Matches(labels.Set(p.Labels)) {
			in.pods = append(in.pods, p)
			if of := budgets(w, p); len(of) > 1 && of[0] == b {
				in.shared[p.UID] = true
			}
		}
	}
	slices.SortFunc(in.pods, byName)
	in.managed, in.unscaled = scale(w, in.pods)
	return in
}

func byName[T apis.Object](a, b T) int { return cmp.Compare(a.GetName(), b.GetName()) }

func decide(in input) ctrl.Plan {
	b, plan, told := in.budget, ctrl.Plan{}, memo{none: len(in.pods) == 0, shared: in.shared}
	if told.none && !in.told.none {
		plan.Do = append(plan.Do, ctrl.Tell(b, "NoPods: No matching pods found"))
	}
	for _, p := range in.pods {
		if in.shared[p.UID] && !in.told.shared[p.UID] {
			plan.Do = append(plan.Do, ctrl.Complain(p, "MultiplePodDisruptionBudgets: Pod %q/%q matches multiple PodDisruptionBudgets.  Chose %q arbitrarily.", p.Namespace, p.Name, b.Name))
		}
	}
	out := b.DeepCopy()
	if expected, desired, err := in.count(); err != nil {
		told.failed = err.Error()
		if told.failed != in.told.failed {
			plan.Do = append(plan.Do, ctrl.Complain(b, "CalculateExpectedPodCountFailed: Failed to calculate the number of expected pods: %v", err))
		}
		out.Status.DisruptionsAllowed = 0
		in.condition(out, metav1.ConditionFalse, policyv1.SyncFailedReason, err.Error())
	} else {
		var late []ctrl.Action
		out.Status.DisruptedPods, late, plan.After = in.disrupted()
		plan.Do = append(plan.Do, late...)
		in.status(out, int32(expected), int32(desired))
	}
	plan.Memo = told
	if !equality.Semantic.DeepEqual(b.Status, out.Status) {
		plan.Do = append(plan.Do, ctrl.Action{Verb: ctrl.UpdateStatus, Obj: out})
	}
	return plan
}

// count is how many pods there are to be, and how many of them healthy.
func (in input) count() (expected, desired int, err error) {
	most, least := in.budget.Spec.MaxUnavailable, in.budget.Spec.MinAvailable
	switch {
	case most != nil:
		if in.unscaled != nil {
			return 0, 0, in.unscaled
		}
		n, err := intstr.GetScaledValueFromIntOrPercent(most, in.managed, true)
		return in.managed, max(0, in.managed-n), err
	case least != nil && least.Type == intstr.Int:
		return len(in.pods), least.IntValue(), nil
	case least != nil:
		if in.unscaled != nil {
			return 0, 0, in.unscaled
		}
		n, err := intstr.GetScaledValueFromIntOrPercent(least, in.managed, true)
		return in.managed, n, err
	}
	return 0, 0, nil
}

// disrupted are the pods that were evicted and are still to be deleted, a
// warning for each that was not in time, and when the next is late.
func (in input) disrupted() (waiting map[string]metav1.Time, late []ctrl.Action, after time.Duration) {
	for _, p := range in.pods {
		since, evicted := in.budget.Status.DisruptedPods[p.Name]
		if !evicted || p.DeletionTimestamp != nil {
			continue
		}
		left := since.Add(patience).Sub(in.now)
		if left < 0 {
			ns := in.budget.Namespace
			late = append(late, ctrl.Complain(p, "NotDeleted: Pod was expected by PDB %s/%s to be deleted but it wasn't", ns, ns)) // twice, as upstream
			continue
		}
		if waiting == nil {
			waiting = map[string]metav1.Time{}
		}
		waiting[p.Name] = since
		after = ctrl.Soonest(after, max(left, time.Millisecond)) // it is late after it, not at it
	}
	return waiting, late, after
}

// status fills in the status of out, which has the disrupted pods already.
// While nothing is expected nothing may go: the first pods may not be seen yet.
func (in input) status(out *policyv1.PodDisruptionBudget, expected, desired int32) {
	s := &out.Status
	s.CurrentHealthy, s.DesiredHealthy, s.ExpectedPods, s.DisruptionsAllowed = 0, desired, expected, 0
	for _, p := range in.pods {
		if _, evicted := s.DisruptedPods[p.Name]; p.DeletionTimestamp == nil && !evicted && ctrl.Ready(p) {
			s.CurrentHealthy++
		}
	}
	if expected > 0 {
		s.DisruptionsAllowed = max(0, s.CurrentHealthy-desired)
	}
	s.ObservedGeneration = out.Generation
	if s.DisruptionsAllowed > 0 {
		in.condition(out, metav1.ConditionTrue, policyv1.SufficientPodsReason, "")
	} else {
		in.condition(out, metav1.ConditionFalse, policyv1.InsufficientPodsReason, "")
	}
}

func (in input) condition(out *policyv1.PodDisruptionBudget, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&out.Status.Conditions, metav1.Condition{
		Type: policyv1.DisruptionAllowedCondition, Status: status, Reason: reason, Message: message,
		ObservedGeneration: out.Status.ObservedGeneration, LastTransitionTime: metav1.NewTime(in.now.Truncate(time.Second)),
	})
}

// scale is how many pods those who own pods are to have in all. Pods that
// nobody owns do not count.
func scale(w ctrl.World, pods []*corev1.Pod) (sum int, err error) {
	seen := map[types.UID]bool{}
	for _, p := range pods {
		ref := metav1.GetControllerOfNoCopy(p)
		if ref == nil {
			continue
		}
		who, replicas := owner(w, p.Namespace, ref)
		if who == nil {
			return 0, unowned(p, ref)
		}
		if !seen[who.GetUID()] {
			seen[who.GetUID()] = true
			sum += int(replicas)
		}
	}
	return sum, nil
}

// owner is what scales the pods that ref owns, nil where nothing is known to.
func owner(w ctrl.World, ns string, ref *metav1.OwnerReference) (apis.Object, int32) {
	switch ref.Kind {
	case "ReplicaSet":
		s := ctrl.Get[*appsv1.ReplicaSet](w, ns, ref.Name)
		if s == nil || s.UID != ref.UID {
			return nil, 0
		}
		if over := metav1.GetControllerOfNoCopy(s); over != nil && over.Kind == "Deployment" {
			if d := ctrl.Get[*appsv1.Deployment](w, ns, over.Name); d != nil && d.UID == over.UID {
				return d, wants(d.Spec.Replicas)
			}
			return nil, 0
		}
		return s, wants(s.Spec.Replicas)
	case "StatefulSet":
		if s := ctrl.Get[*appsv1.StatefulSet](w, ns, ref.Name); s != nil && s.UID == ref.UID {
			return s, wants(s.Spec.Replicas)
		}
	case "ReplicationController":
		if c := ctrl.Get[*corev1.ReplicationController](w, ns, ref.Name); c != nil && c.UID == ref.UID {
			return c, wants(c.Spec.Replicas)
		}
	}
	return nil, 0
}

func wants(replicas *int32) int32 {
	if replicas == nil {
		return 1
	}
	return *replicas
}

// unowned tells that it is not known how many pods the owner of p is to have.
func unowned(p *corev1.Pod, ref *metav1.OwnerReference) error {
	switch ref.Kind {
	case "Job", "DaemonSet":
		gvr, _ := meta.UnsafeGuessKindToResource(metav1.SchemeGroupVersion.WithKind(ref.Kind))
		group, _, _ := strings.Cut(ref.APIVersion, "/")
		return fmt.Errorf("%s.%s does not implement the scale subresource", gvr.Resource, group)
	}
	return fmt.Errorf("found no controllers for pod %q", p.Name)
}
