// Package deployment moves the pods of a Deployment from one template to the
// next, by the size of one ReplicaSet for each template. The pods themselves
// are the business of package replicaset.
package deployment

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-dev/knarr/ctrl"
)

// Controller is the deployment controller.
var Controller = ctrl.Controller[*appsv1.Deployment, input]{
	Name:    "deployment-controller",
	Workers: 5,
	Reads: []ctrl.Read{
		ctrl.Dependents(kind, func(w ctrl.World, rs *appsv1.ReplicaSet) []ctrl.Key {
			return ctrl.Selecting(w, rs, func(d *appsv1.Deployment) labels.Selector { return ctrl.Selector(d.Spec.Selector) })
		}),
		ctrl.Watch(lastPod, ctrl.ByOwner),
	},
	Writes: []ctrl.Write{
		ctrl.May(&appsv1.ReplicaSet{}, ctrl.Create, ctrl.Update, ctrl.Delete, ctrl.Patch),
		ctrl.May(&appsv1.Deployment{}, ctrl.UpdateStatus, ctrl.Check),
	},
	Gather: gather,
	Decide: decide,
}.Erase()

var kind = appsv1.SchemeGroupVersion.WithKind("Deployment")

// lastPod wakes a deployment that recreates when one of its pods is over:
// it may have waited for that.
func lastPod(w ctrl.World, old, pod *corev1.Pod) []ctrl.Key {
	if old == nil || pod != nil && (ctrl.Finished(old) || !ctrl.Finished(pod)) {
		return nil
	}
	ref := metav1.GetControllerOfNoCopy(old)
	if ref == nil || ref.Kind != "ReplicaSet" {
		return nil
	}
	rs := ctrl.Get[*appsv1.ReplicaSet](w, old.Namespace, ref.Name)
	if rs == nil {
		return nil
	}
	if ref = metav1.GetControllerOfNoCopy(rs); ref == nil || ref.Kind != kind.Kind {
		return nil
	}
	if d := ctrl.Get[*appsv1.Deployment](w, old.Namespace, ref.Name); d == nil || !recreates(d) {
		return nil
	}
	return []ctrl.Key{{Namespace: old.Namespace, Name: ref.Name}}
}

type input struct {
	dep   *appsv1.Deployment
	sets  []*appsv1.ReplicaSet // controlled by dep or by nobody
	names map[string]bool      // of all sets in the namespace that begin like one of dep's
	alive map[string]bool      // the sets, by UID, that have a pod which may still run; only where dep recreates
	now   time.Time
}

func gather(w ctrl.World, d *appsv1.Deployment) input {
	in := input{dep: d, sets: ctrl.Owned[*appsv1.ReplicaSet](w, d), names: map[string]bool{}, alive: map[string]bool{}, now: w.Now}
	for _, rs := range ctrl.In[*appsv1.ReplicaSet](w, d.Namespace) {
		if strings.HasPrefix(rs.Name, d.Name+"-") {
			in.names[rs.Name] = true
		}
	}
	if recreates(d) {
		for _, rs := range in.sets {
			pods := ctrl.Find[*corev1.Pod](w, ctrl.ByOwner, string(rs.UID))
			in.alive[string(rs.UID)] = slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return !ctrl.Finished(p) })
		}
	}
	return in
}

// A rollout is a decision in the making: dep and the sets are copies that
// become what they shall be.
type rollout struct {
	input

	was   *appsv1.Deployment
	fresh *set   // has the deployment's template; nil where there is none yet
	old   []*set // all others, oldest first
}

// A set is a ReplicaSet and what it is to become. was is nil where it is to
// be created.
type set struct {
	*appsv1.ReplicaSet

	was *appsv1.ReplicaSet
}

// newSet copies of rs no more than what a rollout changes.
func newSet(rs *appsv1.ReplicaSet) *set {
	c := *rs
	c.Annotations = maps.Clone(rs.Annotations)
	c.Spec.Replicas = new(*rs.Spec.Replicas)
	return &set{&c, rs}
}

// copyOf copies of d no more than what a rollout changes.
func copyOf(d *appsv1.Deployment) *appsv1.Deployment {
	c := *d
	c.Annotations = maps.Clone(d.Annotations)
	if n := d.Status.CollisionCount; n != nil {
		c.Status.CollisionCount = new(*n)
	}
	return &c
}

func (s *set) size() int32 { return *s.Spec.Replicas }

func decide(in input) ctrl.Plan {
	if everything := (&metav1.LabelSelector{}); reflect.DeepEqual(in.dep.Spec.Selector, everything) {
		return ctrl.Plan{Do: refuse(in.dep)}
	}
	claim := ctrl.Claimant{Owner: in.dep, Kind: kind, Picks: ctrl.Selector(in.dep.Spec.Selector)}
	mine, do := ctrl.Claim(claim, in.sets)
	r := &rollout{input: in, was: in.dep}
	r.dep = copyOf(in.dep)
	r.sort(mine)

	if in.dep.DeletionTimestamp != nil {
		r.countAll()
		return ctrl.Plan{Do: append(do, r.writeStatus()...)}
	}
	r.notePause()
	r.syncRevision()
	scaling := r.scaled()
	if scaling || r.dep.Spec.Paused {
		r.scale()
	}
	if !r.dep.Spec.Paused {
		r.roll()
	}
	r.countAll()
	if !r.dep.Spec.Paused {
		r.judge()
	}
	var drop []ctrl.Action
	if r.dep.Spec.Paused || complete(r.dep) {
		drop = r.history()
	}
	do = append(append(append(do, r.writeSets()...), drop...), r.writeStatus()...)
	return ctrl.Plan{Do: do, After: r.deadline()}
}

// refuse does no more than to tell that a selector of everything is none.
func refuse(d *appsv1.Deployment) []ctrl.Action {
	do := []ctrl.Action{ctrl.Complain(d, "SelectingAll: This deployment is selecting all pods. A non-empty selector is required.")}
	if d.Status.ObservedGeneration < d.Generation {
		out := d.DeepCopy()
		out.Status.ObservedGeneration = d.Generation
		return append(do, ctrl.Action{Verb: ctrl.UpdateStatus, Obj: out})
	}
	return nil
}

// sort finds the set with the deployment's template, the oldest where there
// are two, and puts the others in order.
func (r *rollout) sort(sets []*appsv1.ReplicaSet) {
	slices.SortFunc(sets, byAge)
	for _, rs := range sets {
		s := newSet(rs)
		if r.fresh == nil && sameTemplate(&rs.Spec.Template, &r.dep.Spec.Template) {
			r.fresh = s
			continue
		}
		r.old = append(r.old, s)
	}
}

func byAge(a, b *appsv1.ReplicaSet) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}

// all are the sets, the fresh one last.
func (r *rollout) all() []*set {
	if r.fresh == nil {
		return r.old
	}
	return append(slices.Clip(r.old), r.fresh)
}

// active are the sets that have pods, or should.
func active(sets []*set) (out []*set) {
	for _, s := range sets {
		if s.size() > 0 {
			out = append(out, s)
		}
	}
	return out
}

func total(sets []*set) (n int32) {
	for _, s := range sets {
		n += s.size()
	}
	return n
}

// held counts the pods that there are or will be: those a set is asked for,
// and those it still has too many.
func held(sets []*set) (n int32) {
	for _, s := range sets {
		n += max(s.size(), s.Status.Replicas)
	}
	return n
}

func sum(sets []*set, of func(*appsv1.ReplicaSetStatus) int32) (n int32) {
	for _, s := range sets {
		n += of(&s.Status)
	}
	return n
}

func available(s *appsv1.ReplicaSetStatus) int32 { return s.AvailableReplicas }

// writeSets makes the sets what they became: what shrinks goes first, so that
// never too many pods are asked for.
func (r *rollout) writeSets() (do []ctrl.Action) {
	var grow []ctrl.Action
	for _, s := range r.all() {
		switch {
		case s.was == nil:
			grow = append(grow, r.create(s)...)
		case s.size() > *s.was.Spec.Replicas:
			grow = append(grow, r.update(s)...)
		default:
			do = append(do, r.update(s)...)
		}
	}
	return append(do, grow...)
}

func (r *rollout) update(s *set) []ctrl.Action {
	if reflect.DeepEqual(s.was, s.ReplicaSet) {
		return nil
	}
	do := []ctrl.Action{{Verb: ctrl.Update, Obj: s.ReplicaSet}}
	from, to := *s.was.Spec.Replicas, s.size()
	if from != to {
		way := "up"
		if to < from {
			way = "down"
		}
		do = append(do, ctrl.Tell(r.was, "ScalingReplicaSet: Scaled %s replica set %s from %d to %d", way, s.Name, from, to))
	}
	return do
}

// history deletes the oldest sets without pods that are too many to keep.
func (r *rollout) history() (do []ctrl.Action) {
	limit := r.dep.Spec.RevisionHistoryLimit
	if limit == nil {
		return nil
	}
	var olds []*set
	for _, s := range r.old {
		if s.DeletionTimestamp == nil {
			olds = append(olds, s)
		}
	}
	slices.SortStableFunc(olds, func(a, b *set) int { return cmp.Compare(revision(a.ReplicaSet), revision(b.ReplicaSet)) })
	for _, s := range olds[:max(0, len(olds)-int(*limit))] {
		if s.Status.Replicas == 0 && s.size() == 0 && *s.was.Spec.Replicas == 0 && s.Generation <= s.Status.ObservedGeneration {
			do = append(do, ctrl.Action{Verb: ctrl.Delete, Obj: s.ReplicaSet})
		}
	}
	return do
}

func (r *rollout) writeStatus() []ctrl.Action {
	if reflect.DeepEqual(r.was.Status, r.dep.Status) && reflect.DeepEqual(r.was.Annotations, r.dep.Annotations) {
		return nil
	}
	return []ctrl.Action{{Verb: ctrl.UpdateStatus, Obj: r.dep}}
}

func recreates(d *appsv1.Deployment) bool {
	return d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType
}
