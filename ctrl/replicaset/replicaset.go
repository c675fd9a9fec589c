// Package replicaset keeps as many pods of a ReplicaSet, or of a
// ReplicationController, as its spec asks for.
package replicaset

import (
	"reflect"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/ctrl"
)

// burst is the most pods created or deleted in one plan, so that one big set
// does not keep a worker to itself.
const burst = 500

// Controller is the controller of ReplicaSets.
var Controller = ctrl.Controller[*appsv1.ReplicaSet, input]{
	Name:    "replicaset-controller",
	Workers: 5,
	Reads: []ctrl.Read{
		ctrl.Watch[*appsv1.ReplicaSet](nil, ctrl.ByOwner),
		ctrl.Dependents(setKind, func(w ctrl.World, p *corev1.Pod) []ctrl.Key { return ctrl.Selecting(w, p, picksOf) }),
	},
	Writes: writes(&appsv1.ReplicaSet{}),
	Gather: func(w ctrl.World, rs *appsv1.ReplicaSet) input { return gather(w, asSet(rs)) },
	Decide: decide,
}.Erase()

// RC is the controller of ReplicationControllers.
var RC = ctrl.Controller[*corev1.ReplicationController, input]{
	Name:    "replicationcontroller-controller",
	Account: "replication-controller",
	Source:  "replication-controller",
	Workers: 5,
	Reads: []ctrl.Read{
		ctrl.Dependents(rcKind, func(w ctrl.World, p *corev1.Pod) []ctrl.Key { return ctrl.Selecting(w, p, picksOfRC) }),
	},
	Writes: writes(&corev1.ReplicationController{}),
	Gather: func(w ctrl.World, rc *corev1.ReplicationController) input { return gather(w, rcAsSet(rc)) },
	Decide: decide,
}.Erase()

func writes(kind apis.Object) []ctrl.Write {
	return []ctrl.Write{
		ctrl.May(&corev1.Pod{}, ctrl.Create, ctrl.Delete, ctrl.Patch),
		ctrl.May(kind, ctrl.UpdateStatus, ctrl.Check),
	}
}

type input struct {
	set    set
	pods   []*corev1.Pod  // active, and controlled by the set or by nobody
	ending []*corev1.Pod  // the set's own that are being deleted
	beside map[string]int // active pods of the set and its siblings, by node
	now    time.Time
}

func gather(w ctrl.World, s set) input {
	in := input{set: s, now: w.Now}
	for _, p := range ctrl.Owned[*corev1.Pod](w, s.obj) {
		switch {
		case ctrl.Active(p):
			in.pods = append(in.pods, p)
		case ctrl.Terminating(p) && ctrl.Owns(s.obj, p) && s.picks.Matches(labels.Set(p.Labels)):
			in.ending = append(in.ending, p)
		}
	}
	if len(in.pods) > s.replicas {
		in.beside = neighbours(w, s)
	}
	return in
}

// neighbours counts the pods by node that share a deployment with the set:
// of two on one node, one is less of a loss.
func neighbours(w ctrl.World, s set) map[string]int {
	siblings := []apis.Object{s.obj}
	if ref := metav1.GetControllerOfNoCopy(s.obj); ref != nil && s.kind == setKind {
		siblings = siblings[:0]
		for _, rs := range ctrl.Find[*appsv1.ReplicaSet](w, ctrl.ByOwner, string(ref.UID)) {
			siblings = append(siblings, rs)
		}
	}
	count := map[string]int{}
	for _, o := range siblings {
		for _, p := range ctrl.Find[*corev1.Pod](w, ctrl.ByOwner, string(o.GetUID())) {
			if ctrl.Active(p) {
				count[p.Spec.NodeName]++
			}
		}
	}
	return count
}

func decide(in input) ctrl.Plan {
	var plan ctrl.Plan
	in.pods, plan.Do = ctrl.Claim(ctrl.Claimant{Owner: in.set.obj, Kind: in.set.kind, Picks: in.set.picks}, in.pods)

	then := in
	if !in.set.leaving() {
		plan.Do = append(plan.Do, scale(in, &then)...)
	}
	status, after := observe(then)
	status.Conditions = without(in.set.status.Conditions)
	plan.Do = append(plan.Do, write(in.set, status)...)
	plan.After = after
	return plan
}

// scale makes up the difference between the pods there are and those asked
// for. It leaves in then what there will be when that has succeeded.
func scale(in input, then *input) (do []ctrl.Action) {
	diff := in.set.replicas - len(in.pods)
	for range min(diff, burst) {
		pod := ctrl.PodFrom(in.set.template, in.set.obj, in.set.kind)
		then.pods = append(then.pods, pod)
		do = append(do, ctrl.Action{
			Verb: ctrl.Create, Obj: pod, Pace: ctrl.SlowStart,
			Then: in.told("SuccessfulCreate: Created pod: %s"),
			Else: in.failed("FailedCreate", "Error creating: %v", "%v"),
		})
	}
	if diff < 0 {
		victims, rest := ctrl.Ranking{Beside: in.beside, Now: in.now}.Worst(in.pods, min(-diff, burst))
		then.pods = rest
		for _, p := range victims {
			if lingers(p) {
				then.ending = append(then.ending, p)
			}
			do = append(do, ctrl.Action{
				Verb: ctrl.Delete, Obj: p, Pace: ctrl.AtOnce,
				Then: in.told("SuccessfulDelete: Deleted pod: %s"),
				Else: in.failed("FailedDelete", "Error deleting: %v", "unable to delete pods: %v"),
			})
		}
	}
	return do
}

// lingers reports whether a deletion of p takes the time of its node.
func lingers(p *corev1.Pod) bool {
	grace := p.Spec.TerminationGracePeriodSeconds
	return p.Spec.NodeName != "" && (grace == nil || *grace > 0)
}

func (in input) told(format string) func(apis.Object) []ctrl.Action {
	return func(done apis.Object) []ctrl.Action {
		return []ctrl.Action{ctrl.Tell(in.set.obj, format, done.GetName())}
	}
}

// failed is what follows where the scaling does: an event, and a condition
// that stays as it is until a plan succeeds.
func (in input) failed(reason, event, message string) func(error) []ctrl.Action {
	return func(err error) []ctrl.Action {
		status, _ := observe(in)
		status.Conditions = in.set.status.Conditions
		if !slices.ContainsFunc(status.Conditions, isFailure) {
			status.Conditions = append(without(status.Conditions), appsv1.ReplicaSetCondition{
				Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Reason: reason,
				Message: sprint(message, err), LastTransitionTime: metav1.NewTime(in.now),
			})
		}
		return append([]ctrl.Action{ctrl.Complain(in.set.obj, reason+": "+event, err)}, write(in.set, status)...)
	}
}

// observe counts the pods, and tells in how long a ready pod becomes an available one.
func observe(in input) (s appsv1.ReplicaSetStatus, after time.Duration) {
	s = appsv1.ReplicaSetStatus{Replicas: int32(len(in.pods)), ObservedGeneration: in.set.obj.GetGeneration()}
	template := labels.SelectorFromSet(in.set.template.Labels)
	for _, p := range in.pods {
		if template.Matches(labels.Set(p.Labels)) {
			s.FullyLabeledReplicas++
		}
		if ctrl.Ready(p) {
			s.ReadyReplicas++
		}
		available, wait := ctrl.Available(p, in.set.minReady, in.now)
		if available {
			s.AvailableReplicas++
		}
		after = ctrl.Soonest(after, wait)
	}
	if in.set.kind == setKind {
		s.TerminatingReplicas = new(int32(len(in.ending)))
	}
	return s, after
}

func write(s set, status appsv1.ReplicaSetStatus) []ctrl.Action {
	if reflect.DeepEqual(status, s.status) {
		return nil
	}
	return []ctrl.Action{{Verb: ctrl.UpdateStatus, Obj: s.with(status)}}
}

func isFailure(c appsv1.ReplicaSetCondition) bool { return c.Type == appsv1.ReplicaSetReplicaFailure }

// without is the conditions but for that of failure.
func without(cs []appsv1.ReplicaSetCondition) (rest []appsv1.ReplicaSetCondition) {
	for _, c := range cs {
		if !isFailure(c) {
			rest = append(rest, c)
		}
	}
	return rest
}

var (
	setKind = appsv1.SchemeGroupVersion.WithKind("ReplicaSet")
	rcKind  = corev1.SchemeGroupVersion.WithKind("ReplicationController")
)

// A set is what ReplicaSet and ReplicationController have in common.
type set struct {
	obj      apis.Object
	kind     schema.GroupVersionKind
	replicas int
	minReady int32
	picks    labels.Selector
	template *corev1.PodTemplateSpec
	status   appsv1.ReplicaSetStatus
	with     func(appsv1.ReplicaSetStatus) apis.Object // obj with another status
}

func (s set) leaving() bool { return s.obj.GetDeletionTimestamp() != nil }
