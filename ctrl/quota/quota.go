// Package quota recounts what is used of resource quotas. Admission charges
// what is about to be; here it is seen what has gone, and what was charged
// and never came to be.
package quota

import (
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/quota"
	"github.com/knarr-dev/knarr/ctrl"
)

// Name is that of the controller, for whom an object of another kind has gone.
const Name = "resourcequota-controller"

const (
	// resync is how often all is counted anew.
	resync = 5 * time.Minute
	// settle is how long what was charged may take to be seen: what was
	// counted with less is counted once more after it.
	settle = time.Second
)

// Counts returns how many objects a namespace has of each kind whose objects
// can be counted, and whether those are all such kinds there are.
type Counts func(namespace string) (of map[schema.GroupResource]int, all bool)

// The kinds of which more than the number of objects matters, and quotas
// themselves, which must not miss the one that is counted for.
var (
	pods     = quota.For(schema.GroupResource{Resource: "pods"})
	services = quota.For(schema.GroupResource{Resource: "services"})
	claims   = quota.For(schema.GroupResource{Resource: "persistentvolumeclaims"})
	devices  = quota.For(schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceclaims"})
	quotas   = quota.For(schema.GroupResource{Resource: "resourcequotas"})
)

// New is the controller, which knows by counts what it does not read itself.
func New(counts Counts) ctrl.Erased {
	return ctrl.Controller[*corev1.ResourceQuota, input]{
		Name: Name,
		Reads: []ctrl.Read{
			ctrl.Watch(wakeSelf),
			watch[*corev1.Pod](pods),
			watch[*corev1.Service](services),
			watch[*corev1.PersistentVolumeClaim](claims),
			watch[*resourcev1.ResourceClaim](devices),
		},
		Writes:  []ctrl.Write{ctrl.May(&corev1.ResourceQuota{}, ctrl.UpdateStatus)},
		Workers: 5,
		Heeds:   func(*corev1.ResourceQuota) bool { return false }, // see wakeSelf
		Gather:  func(w ctrl.World, q *corev1.ResourceQuota) input { return gather(w, q, counts) },
		Decide:  decide,
	}.Erase()
}

// wakeSelf wakes a quota that is new or asks for something else. What others
// write to its status stands until there is something to count: admission
// does so all the time.
func wakeSelf(_ ctrl.World, old, q *corev1.ResourceQuota) []ctrl.Key {
	if q == nil || old != nil && quota.Same(old.Spec.Hard, q.Spec.Hard) {
		return nil
	}
	return []ctrl.Key{ctrl.KeyOf(q)}
}

// watch reads kind T for those quotas of which a change leaves more.
func watch[T apis.Object](m quota.Meter) ctrl.Read {
	return ctrl.Read{Kind: reflect.TypeFor[T](), Wakes: func(w ctrl.World, old, obj apis.Object) (keys []ctrl.Key) {
		if old == nil {
			return nil
		}
		for _, q := range ctrl.In[*corev1.ResourceQuota](w, old.GetNamespace()) {
			var left corev1.ResourceList
			if obj != nil {
				left = used(m, q, obj, w.Now)
			}
			if len(quota.Growth(used(m, q, old, w.Now), left)) > 0 {
				keys = append(keys, ctrl.KeyOf(q))
			}
		}
		return keys
	}}
}

// used is what an object uses of what a quota bounds.
func used(m quota.Meter, q *corev1.ResourceQuota, obj any, now time.Time) corev1.ResourceList {
	names := m.Of(q.Spec.Hard)
	if len(names) == 0 || !m.Within(q, obj) {
		return nil
	}
	return quota.Part(m.Usage(obj, now), names)
}

// Heeds reports whether the number of objects of a kind matters to a quota.
func Heeds(q *corev1.ResourceQuota, kind schema.GroupResource) bool {
	return len(quota.For(kind).Of(q.Spec.Hard)) > 0
}

type input struct {
	quota   *corev1.ResourceQuota
	objects []measured
	counts  map[schema.GroupResource]int // of all other kinds
	all     bool                         // that there are
	last    memo
	now     time.Time
}

// measured are the objects of a kind, which are looked at one by one.
type measured struct {
	quota.Meter

	objects []any
}

// A memo is what was asked for at the last look, and when that is to be
// followed by a second count, if at all.
type memo struct {
	hard   corev1.ResourceList
	settle time.Time
}

func gather(w ctrl.World, q *corev1.ResourceQuota, counts Counts) input {
	in := input{quota: q, now: w.Now}
	in.last, _ = w.Memo.(memo)
	in.counts, in.all = counts(q.Namespace)
	in.objects = []measured{
		read[*corev1.Pod](w, pods, q), read[*corev1.Service](w, services, q), read[*corev1.PersistentVolumeClaim](w, claims, q),
		read[*resourcev1.ResourceClaim](w, devices, q), read[*corev1.ResourceQuota](w, quotas, q),
	}
	return in
}

// read gathers the objects of kind T if the quota is about them.
func read[T apis.Object](w ctrl.World, m quota.Meter, q *corev1.ResourceQuota) measured {
	out := measured{Meter: m}
	if len(m.Of(q.Spec.Hard)) > 0 {
		for _, obj := range ctrl.In[T](w, q.Namespace) {
			out.objects = append(out.objects, obj)
		}
	}
	return out
}

func decide(in input) ctrl.Plan {
	was, status := in.quota.Status, in.quota.Status
	if !in.settles() || status.Hard == nil {
		status.Hard = in.quota.Spec.Hard
	}
	var unknown bool
	status.Used, unknown = in.count()
	plan, last := ctrl.Plan{After: resync}, memo{hard: in.quota.Spec.Hard}
	switch {
	case unknown, fell(was.Used, status.Used):
		last.settle = in.now.Add(settle)
	case in.now.Before(in.last.settle):
		last.settle = in.last.settle
	}
	if !last.settle.IsZero() {
		plan.After = last.settle.Sub(in.now)
	}
	plan.Memo = last
	if was.Hard != nil && was.Used != nil && quota.Same(was.Hard, status.Hard) && quota.Same(was.Used, status.Used) {
		return plan
	}
	q := in.quota.DeepCopy()
	q.Status = *status.DeepCopy()
	plan.Do = []ctrl.Action{{Verb: ctrl.UpdateStatus, Obj: q}}
	return plan
}

// settles reports whether this is but a second count. It leaves bounds in the
// status that somebody may have put there meanwhile.
func (in input) settles() bool {
	return !in.last.settle.IsZero() && !in.now.Before(in.last.settle) && quota.Same(in.last.hard, in.quota.Spec.Hard)
}

// count is what is used. Of kinds that have not been seen yet it stays as it
// was, and there is none of what nobody counts.
func (in input) count() (sum corev1.ResourceList, unknown bool) {
	sum = corev1.ResourceList{}
	for _, of := range in.objects {
		names := of.Of(in.quota.Spec.Hard)
		sum = quota.Sum(sum, none(names))
		for _, obj := range of.objects {
			sum = quota.Sum(sum, used(of.Meter, in.quota, obj, in.now))
		}
	}
	for name := range in.quota.Spec.Hard {
		if _, done := sum[name]; done {
			continue
		}
		kind := kindOf(name)
		n, known := in.counts[kind]
		switch before, had := in.quota.Status.Used[name]; {
		case slices.Contains(quota.Ignored, kind):
		case known:
			if len(quota.Scopes(in.quota)) > 0 {
				n = 0 // only what is measured is in a scope
			}
			sum[name] = quota.Number(n)
		case !in.all:
			unknown = true
			if had {
				sum[name] = before
			}
		}
	}
	return sum, unknown
}

// kindOf is the kind whose objects are counted under a name.
func kindOf(name corev1.ResourceName) schema.GroupResource {
	return schema.ParseGroupResource(strings.TrimPrefix(string(name), "count/"))
}

// none is nothing of what is called by names.
func none(names []corev1.ResourceName) corev1.ResourceList {
	out := corev1.ResourceList{}
	for _, name := range names {
		out[name] = quota.Number(0)
	}
	return out
}

// fell reports whether less of something was counted than before, or it was
// not known before.
func fell(before, now corev1.ResourceList) bool {
	for name, n := range now {
		if had, known := before[name]; !known || had.Cmp(n) > 0 {
			return true
		}
	}
	return false
}
