// Package statefulset keeps the pods of a StatefulSet: each has a name and
// claims of its own that outlive it, they come and go in order, and they move
// from one template to the next from the last to the first.
//
// What is in the claims is not its business, nor where the pods run.
package statefulset

import (
	"cmp"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-dev/knarr/ctrl"
)

// Controller is the stateful set controller.
var Controller = ctrl.Controller[*appsv1.StatefulSet, input]{
	Name:    "statefulset-controller",
	Workers: 5,
	Reads: []ctrl.Read{
		ctrl.Dependents(kind, adopters),
		ctrl.Watch(wakeForClaim),
		ctrl.Watch[*appsv1.ControllerRevision](nil, ctrl.ByOwner),
	},
	Writes: []ctrl.Write{
		ctrl.May(&corev1.Pod{}, ctrl.Create, ctrl.Update, ctrl.Delete, ctrl.Patch),
		ctrl.May(&corev1.PersistentVolumeClaim{}, ctrl.Create, ctrl.Update),
		ctrl.May(&appsv1.ControllerRevision{}, ctrl.Create, ctrl.Update, ctrl.Delete, ctrl.Patch),
		ctrl.May(&appsv1.StatefulSet{}, ctrl.UpdateStatus, ctrl.Check),
	},
	Gather: gather,
	Decide: decide,
}.Erase()

var (
	kind    = appsv1.SchemeGroupVersion.WithKind("StatefulSet")
	podKind = corev1.SchemeGroupVersion.WithKind("Pod")
)

// adopters are the sets that would take p in: it must have a name of theirs too.
func adopters(w ctrl.World, p *corev1.Pod) []ctrl.Key {
	keys := ctrl.Selecting(w, p, func(s *appsv1.StatefulSet) labels.Selector { return ctrl.Selector(s.Spec.Selector) })
	return slices.DeleteFunc(keys, func(k ctrl.Key) bool { return ordinal(k.Name, p.Name) < 0 })
}

// wakeForClaim wakes the sets that a claim belongs to when it is gone: a pod
// may have waited for that.
func wakeForClaim(w ctrl.World, old, c *corev1.PersistentVolumeClaim) (keys []ctrl.Key) {
	if c != nil {
		return nil
	}
	for _, s := range ctrl.In[*appsv1.StatefulSet](w, old.Namespace) {
		for i := range s.Spec.VolumeClaimTemplates {
			pod, ok := strings.CutPrefix(old.Name, s.Spec.VolumeClaimTemplates[i].Name+"-")
			if ok && ordinal(s.Name, pod) >= 0 {
				keys = append(keys, ctrl.KeyOf(s))
			}
		}
	}
	return keys
}

// ordinal is the number of a pod in a set of that name, -1 where it is not
// one of its names.
func ordinal(set, pod string) int {
	digits, ok := strings.CutPrefix(pod, set+"-")
	n, err := strconv.ParseInt(digits, 10, 32)
	if !ok || err != nil || n < 0 || strconv.FormatInt(n, 10) != digits {
		return -1
	}
	return int(n)
}

type input struct {
	set       *appsv1.StatefulSet
	pods      []*corev1.Pod                            // with a name of set's; controlled by it or by nobody
	revisions []*appsv1.ControllerRevision             // controlled by set or by nobody
	names     map[string]bool                          // of all revisions in the namespace that begin like one of set's
	claims    map[string]*corev1.PersistentVolumeClaim // those there are of the pods there are, or should be
	now       time.Time
}

func gather(w ctrl.World, s *appsv1.StatefulSet) input {
	in := input{set: s, now: w.Now, names: map[string]bool{}, claims: map[string]*corev1.PersistentVolumeClaim{}}
	for _, p := range ctrl.Owned[*corev1.Pod](w, s) {
		if ordinal(s.Name, p.Name) >= 0 {
			in.pods = append(in.pods, p)
		}
	}
	in.revisions = ctrl.Owned[*appsv1.ControllerRevision](w, s)
	for _, r := range ctrl.In[*appsv1.ControllerRevision](w, s.Namespace) {
		if strings.HasPrefix(r.Name, prefix(s)) {
			in.names[r.Name] = true
		}
	}
	if len(s.Spec.VolumeClaimTemplates) == 0 {
		return in
	}
	need := func(n int) {
		for i := range s.Spec.VolumeClaimTemplates {
			name := claimName(s, &s.Spec.VolumeClaimTemplates[i], n)
			if c := ctrl.Get[*corev1.PersistentVolumeClaim](w, s.Namespace, name); c != nil {
				in.claims[name] = c
			}
		}
	}
	for n := first(s); n < end(s); n++ {
		need(n)
	}
	for _, p := range in.pods {
		need(ordinal(s.Name, p.Name))
	}
	return in
}

// first is the least ordinal of s.
func first(s *appsv1.StatefulSet) int {
	if s.Spec.Ordinals != nil {
		return int(s.Spec.Ordinals.Start)
	}
	return 0
}

// end is the least ordinal that s is too small for.
func end(s *appsv1.StatefulSet) int { return first(s) + int(*s.Spec.Replicas) }

func ordered(s *appsv1.StatefulSet) bool {
	return s.Spec.PodManagementPolicy != appsv1.ParallelPodManagement
}

// A member is a pod of the set. One that is not there yet is what it will be.
type member struct {
	*corev1.Pod

	n       int
	made    bool // it is there, or the plan makes it
	leaving bool // it is being deleted, or the plan deletes it
	gone    bool // the plan deletes it and its node has no say in that
}

func (m *member) finished() bool { return m.made && ctrl.Finished(m.Pod) }

func (m *member) ready() bool { return m.Status.Phase == corev1.PodRunning && ctrl.Ready(m.Pod) }

func (m *member) revision() string { return m.Labels[appsv1.StatefulSetRevisionLabel] }

// A run is a decision in the making.
type run struct {
	input

	history         ctrl.History
	current, update version
	members         []*member // by ordinal, those that should be
	condemned       []*member // those that should not, the last first
	unchanged       appsv1.StatefulSetStatus
	do              []ctrl.Action
}

func decide(in input) ctrl.Plan {
	claim := ctrl.Claimant{Owner: in.set, Kind: kind, Picks: ctrl.Selector(in.set.Spec.Selector)}
	revisions, adopt := ctrl.Claim(claim, in.revisions)
	pods, do := ctrl.Claim(claim, in.pods)
	r := &run{input: in, history: ctrl.HistoryOf(revisions), do: append(adopt, do...)}
	if r.set.DeletionTimestamp != nil {
		r.lastRevisions()
	} else if err := r.setRevisions(); err != nil {
		return ctrl.Plan{Do: append(r.do, ctrl.Complain(in.set, "FailedUpdate: %v", err))}
	}
	r.sort(pods)
	r.unchanged, _ = r.observe()
	if r.set.DeletionTimestamp == nil {
		r.manage()
	}
	status, after := r.observe()
	r.do = append(append(r.do, r.write(status)...), r.forget(status)...)
	return ctrl.Plan{Do: r.do, After: after}
}

// sort makes members of the pods, and of those that are missing.
func (r *run) sort(pods []*corev1.Pod) {
	r.members = make([]*member, *r.set.Spec.Replicas)
	for _, p := range pods {
		m := &member{Pod: p, n: ordinal(r.set.Name, p.Name), made: true, leaving: p.DeletionTimestamp != nil}
		if m.n >= first(r.set) && m.n < end(r.set) {
			r.members[m.n-first(r.set)] = m
		} else {
			r.condemned = append(r.condemned, m)
		}
	}
	slices.SortFunc(r.condemned, func(a, b *member) int { return cmp.Compare(b.n, a.n) })
	if r.set.DeletionTimestamp != nil {
		r.members = slices.DeleteFunc(r.members, func(m *member) bool { return m == nil })
		return
	}
	for i, m := range r.members {
		if m == nil {
			n := first(r.set) + i
			r.members[i] = &member{Pod: r.pod(n), n: n}
		}
	}
}

// observe counts the members, and tells in how long a ready one becomes an
// available one.
func (r *run) observe() (s appsv1.StatefulSetStatus, after time.Duration) {
	s = *r.set.Status.DeepCopy()
	s.ObservedGeneration = r.set.Generation
	s.CurrentRevision, s.UpdateRevision = r.current.name, r.update.name
	if s.CollisionCount == nil {
		s.CollisionCount = new(int32(0))
	}
	*s.CollisionCount = r.update.collisions
	s.Replicas, s.ReadyReplicas, s.AvailableReplicas, s.CurrentReplicas, s.UpdatedReplicas = 0, 0, 0, 0, 0
	for _, m := range slices.Concat(r.members, r.condemned) {
		if !m.made || m.gone {
			continue
		}
		s.Replicas++
		if m.ready() {
			s.ReadyReplicas++
			available, wait := r.available(m)
			if available {
				s.AvailableReplicas++
			}
			after = ctrl.Soonest(after, wait)
		}
		if !m.leaving && m.revision() == r.current.name {
			s.CurrentReplicas++
		}
		if !m.leaving && m.revision() == r.update.name {
			s.UpdatedReplicas++
		}
	}
	n := *r.set.Spec.Replicas
	if rolls(r.set) && s.UpdatedReplicas == n && s.ReadyReplicas == n && s.Replicas == n {
		s.CurrentReplicas, s.CurrentRevision = s.UpdatedReplicas, s.UpdateRevision
	}
	return s, after
}

func rolls(s *appsv1.StatefulSet) bool {
	return s.Spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType
}

func (r *run) available(m *member) (bool, time.Duration) {
	return ctrl.Available(m.Pod, r.set.Spec.MinReadySeconds, r.now)
}

func (r *run) write(status appsv1.StatefulSetStatus) []ctrl.Action {
	if reflect.DeepEqual(status, r.set.Status) {
		return nil
	}
	set := r.set.DeepCopy()
	set.Status = status
	return []ctrl.Action{{Verb: ctrl.UpdateStatus, Obj: set}}
}
