// Package daemonset keeps one pod of a DaemonSet on every node that it may
// run on, and moves them from one template to the next. The pod asks for its
// node by affinity: to put it there is the scheduler's business.
package daemonset

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/ctrl"
)

// burst is the most pods created or deleted in one plan.
const burst = 250

// Controller is the daemon set controller.
var Controller = ctrl.Controller[*appsv1.DaemonSet, input]{
	Name:    "daemonset-controller",
	Account: "daemon-set-controller",
	Workers: 2,
	Reads: []ctrl.Read{
		ctrl.Dependents(kind, func(w ctrl.World, p *corev1.Pod) []ctrl.Key { return ctrl.Selecting(w, p, picks) }),
		revisions(),
		ctrl.Watch(wakeForNode),
	},
	Writes: []ctrl.Write{
		ctrl.May(&corev1.Pod{}, ctrl.Create, ctrl.Delete, ctrl.Patch),
		ctrl.May(&appsv1.ControllerRevision{}, ctrl.Create, ctrl.Update, ctrl.Delete, ctrl.Patch),
		ctrl.May(&appsv1.DaemonSet{}, ctrl.UpdateStatus, ctrl.Check),
	},
	Gather: gather,
	Decide: decide,
}.Erase()

var kind = appsv1.SchemeGroupVersion.WithKind("DaemonSet")

func picks(d *appsv1.DaemonSet) labels.Selector { return ctrl.Selector(d.Spec.Selector) }

// revisions reads the revisions of sets. A new one is a set's own doing, or
// one that a user made, which waits until there is something to do.
func revisions() ctrl.Read {
	r := ctrl.Dependents(kind, func(w ctrl.World, rev *appsv1.ControllerRevision) []ctrl.Key { return ctrl.Selecting(w, rev, picks) })
	wakes := r.Wakes
	r.Wakes = func(w ctrl.World, old, obj apis.Object) []ctrl.Key {
		if old == nil && metav1.GetControllerOfNoCopy(obj) != nil {
			return nil
		}
		return wakes(w, old, obj)
	}
	return r
}

// wakeForNode wakes the sets for which a node has become another one.
func wakeForNode(w ctrl.World, old, n *corev1.Node) (keys []ctrl.Key) {
	if old != nil && n != nil && reflect.DeepEqual(old.Labels, n.Labels) && reflect.DeepEqual(old.Spec.Taints, n.Spec.Taints) {
		return nil
	}
	for _, d := range ctrl.All[*appsv1.DaemonSet](w) {
		at := newPlace(d)
		was, is := at.verdict(old), at.verdict(n)
		if was != is {
			keys = append(keys, ctrl.KeyOf(d))
		}
	}
	return keys
}

type input struct {
	set       *appsv1.DaemonSet
	pods      []*corev1.Pod                // controlled by set or by nobody
	revisions []*appsv1.ControllerRevision // controlled by set or by nobody
	names     map[string]bool              // of all revisions in the namespace that begin like one of set's
	nodes     []*corev1.Node               // by name
	failures  failures
	now       time.Time
}

func gather(w ctrl.World, d *appsv1.DaemonSet) input {
	in := input{set: d, now: w.Now, names: map[string]bool{}}
	in.failures, _ = w.Memo.(failures)
	in.pods = ctrl.Owned[*corev1.Pod](w, d)
	in.revisions = ctrl.Owned[*appsv1.ControllerRevision](w, d)
	for _, r := range ctrl.In[*appsv1.ControllerRevision](w, d.Namespace) {
		if strings.HasPrefix(r.Name, d.Name+"-") {
			in.names[r.Name] = true
		}
	}
	in.nodes = ctrl.All[*corev1.Node](w)
	slices.SortFunc(in.nodes, func(a, b *corev1.Node) int { return cmp.Compare(a.Name, b.Name) })
	return in
}

// A run is a decision in the making.
type run struct {
	input

	place      place
	history    ctrl.History // but for the revision that the set has now
	hash       string       // of that one
	collisions *int32
	fits       map[string]verdict       // by node
	on         map[string][]*corev1.Pod // by node, the oldest first
	wanted     int                      // nodes that should have a pod
	second     int                      // of them, those that may have two while the set moves on
	missing    int                      // and those that may have none
	unchanged  appsv1.DaemonSetStatus
	add        []string // nodes that get a pod
	remove     []*corev1.Pod
	do         []ctrl.Action
	after      time.Duration
}

func decide(in input) ctrl.Plan {
	if in.set.DeletionTimestamp != nil {
		return ctrl.Plan{}
	}
	if picks(in.set).Empty() {
		return ctrl.Plan{Do: []ctrl.Action{ctrl.Complain(in.set,
			"SelectingAll: This daemon set is selecting all pods. A non-empty selector is required.")}}
	}
	claim := ctrl.Claimant{Owner: in.set, Kind: kind, Picks: picks(in.set)}
	revs, adopt := ctrl.Claim(claim, in.revisions)
	pods, do := ctrl.Claim(claim, in.pods)
	r := &run{input: in, do: append(adopt, do...), collisions: in.set.Status.CollisionCount}
	r.pods = pods
	r.setRevision(ctrl.HistoryOf(revs))
	r.place = newPlace(in.set)
	r.fits = map[string]verdict{}
	for _, n := range in.nodes {
		r.fits[n.Name] = r.place.verdict(n)
	}
	r.limit()
	r.group()
	r.unchanged = r.observe()
	r.manage()
	if len(r.add)+len(r.remove) == 0 {
		r.roll()
	}
	r.act()
	forget := r.forget()
	r.do = append(append(r.do, r.write(r.observe())...), forget...)
	return ctrl.Plan{Do: r.do, After: r.after, Memo: r.failures}
}

// group puts the pods on their nodes. One that is over and only waits for its
// finalizers is on none.
func (r *run) group() {
	r.on = map[string][]*corev1.Pod{}
	for _, p := range r.pods {
		if node := target(p); node != "" && (!ctrl.Finished(p) || p.DeletionTimestamp == nil) {
			r.on[node] = append(r.on[node], p)
		}
	}
	for _, pods := range r.on {
		slices.SortFunc(pods, oldestFirst)
	}
}

// oldestFirst puts what is bound to its node before what is not.
func oldestFirst(a, b *corev1.Pod) int {
	bound := func(p *corev1.Pod) int {
		if p.Spec.NodeName != "" {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(bound(a), bound(b)), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}

// target is the node that p is on, or asks for; none where that cannot be told.
func target(p *corev1.Pod) string {
	if p.Spec.NodeName != "" {
		return p.Spec.NodeName
	}
	if p.Spec.Affinity == nil || p.Spec.Affinity.NodeAffinity == nil || p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return ""
	}
	for _, term := range p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, f := range term.MatchFields {
			if f.Key == metav1.ObjectNameField && f.Operator == corev1.NodeSelectorOpIn && len(f.Values) == 1 {
				return f.Values[0]
			}
		}
	}
	return ""
}

// act creates and deletes pods, and leaves in r what will be then.
func (r *run) act() {
	for _, node := range r.add[:min(len(r.add), burst)] {
		p := r.pod(node)
		r.on[node] = append(r.on[node], p)
		r.pods = append(slices.Clip(r.pods), p)
		r.do = append(r.do, ctrl.Action{
			Verb: ctrl.Create, Obj: p, Pace: ctrl.SlowStart,
			Then: r.told("SuccessfulCreate: Created pod: %s"), Else: r.failed("FailedCreate: Error creating: %v"),
		})
	}
	for _, p := range r.remove[:min(len(r.remove), burst)] {
		if !lingers(p) {
			node := target(p)
			if r.on[node] = slices.DeleteFunc(slices.Clone(r.on[node]), func(o *corev1.Pod) bool { return o == p }); len(r.on[node]) == 0 {
				delete(r.on, node)
			}
		}
		r.do = append(r.do, ctrl.Action{
			Verb: ctrl.Delete, Obj: p, Pace: ctrl.AtOnce,
			Then: r.told("SuccessfulDelete: Deleted pod: %s"), Else: r.failed("FailedDelete: Error deleting: %v"),
		})
	}
}

// lingers reports whether a deletion of p takes the time of its node.
func lingers(p *corev1.Pod) bool {
	grace := p.Spec.TerminationGracePeriodSeconds
	return p.Spec.NodeName != "" && !ctrl.Finished(p) && (grace == nil || *grace > 0)
}

func (r *run) told(format string) func(apis.Object) []ctrl.Action {
	return func(done apis.Object) []ctrl.Action { return []ctrl.Action{ctrl.Tell(r.set, format, done.GetName())} }
}

// failed is what follows where an action does: an event, and the status
// without what the plan would have changed.
func (r *run) failed(format string) func(error) []ctrl.Action {
	return func(err error) []ctrl.Action {
		return append([]ctrl.Action{ctrl.Complain(r.set, format, err)}, r.write(r.unchanged)...)
	}
}

// observe counts nodes. Of two pods on one the older counts.
func (r *run) observe() appsv1.DaemonSetStatus {
	s := *r.set.Status.DeepCopy()
	s.ObservedGeneration, s.CollisionCount = r.set.Generation, r.collisions
	s.DesiredNumberScheduled, s.CurrentNumberScheduled, s.NumberMisscheduled = 0, 0, 0
	s.NumberReady, s.NumberAvailable, s.UpdatedNumberScheduled = 0, 0, 0
	for _, n := range r.nodes {
		pods := r.on[n.Name]
		if !r.fits[n.Name].run {
			if len(pods) > 0 {
				s.NumberMisscheduled++
			}
			continue
		}
		s.DesiredNumberScheduled++
		if len(pods) == 0 {
			continue
		}
		s.CurrentNumberScheduled++
		if ctrl.Ready(pods[0]) {
			s.NumberReady++
		}
		available, wait := ctrl.Available(pods[0], r.set.Spec.MinReadySeconds, r.now)
		if available {
			s.NumberAvailable++
		}
		r.after = ctrl.Soonest(r.after, wait)
		if r.updated(pods[0]) {
			s.UpdatedNumberScheduled++
		}
	}
	s.NumberUnavailable = s.DesiredNumberScheduled - s.NumberAvailable
	return s
}

func (r *run) write(status appsv1.DaemonSetStatus) []ctrl.Action {
	if reflect.DeepEqual(status, r.set.Status) {
		return nil
	}
	set := r.set.DeepCopy()
	set.Status = status
	return []ctrl.Action{{Verb: ctrl.UpdateStatus, Obj: set}}
}
