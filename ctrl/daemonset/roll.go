package daemonset

import (
	"cmp"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// roll moves pods to the template of now, as many as may be at a time.
func (r *run) roll() {
	if r.set.Spec.UpdateStrategy.Type != appsv1.RollingUpdateDaemonSetStrategyType {
		return
	}
	if r.second > 0 {
		r.surge()
		return
	}
	r.replace()
}

// limit finds on how many nodes there may be a second pod, and on how many none.
func (r *run) limit() {
	for _, v := range r.fits {
		if v.run {
			r.wanted++
		}
	}
	rolling := r.set.Spec.UpdateStrategy.RollingUpdate
	if rolling == nil || r.set.Spec.UpdateStrategy.Type != appsv1.RollingUpdateDaemonSetStrategyType {
		return
	}
	scaled := func(v *intstr.IntOrString) int {
		n, err := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(v, intstr.FromInt32(0)), r.wanted, true)
		if err != nil {
			return 0
		}
		return n
	}
	r.second, r.missing = scaled(rolling.MaxSurge), scaled(rolling.MaxUnavailable)
	if r.second == 0 && r.missing == 0 {
		r.missing = 1 // without this nothing could ever move
	}
}

// places are the nodes that have a pod, or should.
func (r *run) places() []string {
	names := map[string]bool{}
	for n := range r.on {
		names[n] = true
	}
	for n, v := range r.fits {
		if v.run {
			names[n] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// twins are the pods of a node that stay, by their template; false where
// there are several of one.
func (r *run) twins(node string) (fresh, old *corev1.Pod, ok bool) {
	for _, p := range r.on[node] {
		at := &old
		if r.updated(p) {
			at = &fresh
		}
		switch {
		case p.DeletionTimestamp != nil:
		case *at != nil:
			return nil, nil, false
		default:
			*at = p
		}
	}
	return fresh, old, true
}

// replace deletes old pods: those that are of no use anyway, and as many
// others as may be missing.
func (r *run) replace() {
	var spare []*corev1.Pod
	missing := r.missing
	for _, node := range r.places() {
		fresh, old, ok := r.twins(node)
		switch {
		case !ok, (fresh == nil) == (old == nil):
			missing--
		case fresh != nil:
			if !r.available(fresh) {
				missing--
			}
		case !r.available(old):
			missing--
			r.remove = append(r.remove, old)
		default:
			spare = append(spare, old)
		}
	}
	r.remove = append(r.remove, spare[:max(0, min(missing, len(spare)))]...)
}

// surge makes new pods beside old ones, and deletes an old one when its new
// one is available. A pod on a node that it should not be on any more goes
// when there are enough elsewhere.
func (r *run) surge() {
	var retire []*corev1.Pod
	var candidates []string
	room, available := r.second, 0
	for _, node := range r.places() {
		fresh, old, ok := r.twins(node)
		if !ok {
			room--
			continue
		}
		if p := cmp.Or(old, fresh); p != nil && r.available(p) {
			available++
		}
		switch runs := r.fits[node].run; {
		case old == nil:
		case fresh != nil && r.available(fresh):
			r.remove = append(r.remove, old)
		case fresh != nil:
			room--
		case !runs && !r.available(old):
			r.remove = append(r.remove, old)
		case !runs:
			retire = append(retire, old)
		case !r.available(old):
			r.add = append(r.add, node)
		default:
			candidates = append(candidates, node)
		}
	}
	r.remove = append(r.remove, retire[:max(0, min(available-r.wanted, len(retire)))]...)
	r.add = append(r.add, candidates[:max(0, min(room, len(candidates)))]...)
}
