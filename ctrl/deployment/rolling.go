package deployment

import (
	"cmp"
	"math"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// roll moves the pods towards the fresh set as far as it can at this moment.
func (r *rollout) roll() {
	if recreates(r.dep) {
		r.recreate()
		return
	}
	if r.fresh == nil {
		r.add()
	}
	for r.grow() || r.shrink() {
	}
}

// recreate lets the old pods end before it asks for new ones.
func (r *rollout) recreate() {
	waiting := false
	for _, s := range r.old {
		waiting = waiting || s.size() > 0 || s.Status.Replicas > 0 || r.alive[string(s.UID)]
		r.resize(s, 0)
	}
	if waiting {
		return
	}
	if r.fresh == nil {
		r.add()
		r.note(r.fresh)
	}
	r.resize(r.fresh, r.want())
}

func (r *rollout) want() int32 { return *r.dep.Spec.Replicas }

// resize makes s of size n, and notes with it for what size of the deployment.
func (r *rollout) resize(s *set, n int32) bool {
	if s.size() == n {
		return false
	}
	*s.Spec.Replicas = n
	r.note(s)
	return true
}

func (r *rollout) note(s *set) {
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	surge, _ := r.fences()
	s.Annotations[desiredKey] = strconv.Itoa(int(r.want()))
	s.Annotations[maxKey] = strconv.Itoa(int(r.want() + surge))
}

// fences are how many pods there may be too many, and how many too few.
func (r *rollout) fences() (surge, missing int32) {
	rolling := r.dep.Spec.Strategy.RollingUpdate
	if recreates(r.dep) || rolling == nil {
		return 0, 0
	}
	want := int(r.want())
	s, err := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(rolling.MaxSurge, intstr.FromInt32(0)), want, true)
	if err != nil {
		return 0, 0
	}
	m, err := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(rolling.MaxUnavailable, intstr.FromInt32(0)), want, false)
	if err != nil {
		return 0, 0
	}
	if s == 0 && m == 0 {
		m = 1 // percentages rounded to nothing: without this nothing could ever move
	}
	return int32(s), int32(min(m, want))
}

// grow gives the fresh set its pods as far as the surge allows, and takes
// away what it has too many. Pods that a shrunken set has yet to delete take
// up room: Kubernetes counts what is asked for only, and so has more pods
// than it may while the deletions are under way.
func (r *rollout) grow() bool {
	if r.fresh.was == nil && r.fresh.Annotations[desiredKey] == "" {
		r.note(r.fresh)
	}
	surge, _ := r.fences()
	room := r.want() + surge - held(r.all())
	n := r.want()
	if r.fresh.size() < n {
		n = min(n, r.fresh.size()+max(0, room))
	}
	return r.resize(r.fresh, n)
}

// shrink takes pods from the old sets: at first those that are of no use
// anyway, then as many as are more than must be available. Pods of the fresh
// set that are not available yet count against both.
func (r *rollout) shrink() bool {
	if total(r.old) == 0 {
		return false
	}
	_, missing := r.fences()
	least := r.want() - missing
	spare := total(r.all()) - least - (r.fresh.size() - r.fresh.Status.AvailableReplicas)
	if spare <= 0 {
		return false
	}
	changed := false
	for _, s := range r.old {
		useless := min(spare, s.size()-s.Status.AvailableReplicas)
		if useless > 0 {
			spare -= useless
			changed = r.resize(s, s.size()-useless) || changed
		}
	}
	extra := r.inUse() - least
	for _, s := range r.old {
		n := min(s.size(), extra)
		if n > 0 {
			extra -= n
			changed = r.resize(s, s.size()-n) || changed
		}
	}
	return changed
}

// inUse counts the available pods that will stay so: a set about to have
// fewer pods than are available now has no more of them.
func (r *rollout) inUse() (n int32) {
	for _, s := range r.all() {
		n += min(s.Status.AvailableReplicas, s.size())
	}
	return n
}

// scaled reports whether the deployment got another size since its sets were
// sized.
func (r *rollout) scaled() bool {
	return slices.ContainsFunc(active(r.all()), func(s *set) bool {
		n, ok := number(s, desiredKey)
		return ok && n != r.want()
	})
}

// scale gives the sets another size and leaves their proportions, so that it
// does not hasten a rollout that may turn out bad.
func (r *rollout) scale() {
	some := active(r.all())
	switch {
	case len(r.all()) == 0:
	case len(some) == 0:
		newest := r.fresh
		if newest == nil {
			newest = r.old[len(r.old)-1]
		}
		r.resize(newest, r.want())
	case len(some) == 1:
		r.resize(some[0], r.want())
		r.note(some[0])
	case r.saturated():
		for _, s := range active(r.old) {
			r.resize(s, 0)
		}
	case !recreates(r.dep):
		r.share(some)
	}
}

// saturated reports whether the fresh set can take the whole load.
func (r *rollout) saturated() bool {
	if r.fresh == nil {
		return false
	}
	desired, ok := number(r.fresh, desiredKey)
	return ok && desired == r.want() && r.fresh.size() == r.want() && r.fresh.Status.AvailableReplicas == r.want()
}

// share spreads the pods to add or to take over sets in proportion to their
// size, the largest first; what rounding leaves is the first one's.
func (r *rollout) share(sets []*set) {
	surge, _ := r.fences()
	allowed := int32(0)
	if r.want() > 0 {
		allowed = r.want() + surge
	}
	change := allowed - total(sets)
	slices.SortFunc(sets, func(a, b *set) int {
		age := byAge(a.ReplicaSet, b.ReplicaSet) // of two alike the older shrinks, the newer grows
		if change > 0 {
			age = -age
		}
		return cmp.Or(cmp.Compare(b.size(), a.size()), age)
	})
	sizes, left := make([]int32, len(sets)), change
	for i, s := range sets {
		part := r.fraction(s, allowed)
		if change > 0 {
			part = min(part, left)
		} else {
			part = max(part, left)
		}
		if change == 0 || left == 0 {
			part = 0
		}
		sizes[i] = s.size() + part
		left -= part
	}
	sizes[0] = max(0, sizes[0]+left)
	for i, s := range sets {
		r.resize(s, sizes[i])
		r.note(s)
	}
}

// fraction is how much s would grow or shrink if it kept its proportion.
func (r *rollout) fraction(s *set, allowed int32) int32 {
	if r.want() == 0 {
		return -s.size()
	}
	before, ok := number(s, maxKey)
	if !ok || before == 0 {
		if before = r.was.Status.Replicas; before == 0 {
			return 0
		}
	}
	return int32(math.Round(float64(s.size())*float64(allowed)/float64(before))) - s.size()
}

func number(s *set, key string) (int32, bool) {
	n, err := strconv.ParseUint(s.Annotations[key], 10, 31)
	return int32(n), err == nil
}

func complete(d *appsv1.Deployment) bool {
	n := *d.Spec.Replicas
	s := &d.Status
	return s.UpdatedReplicas == n && s.Replicas == n && s.AvailableReplicas == n && s.ObservedGeneration >= d.Generation
}
