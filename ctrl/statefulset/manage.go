package statefulset

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/ctrl"
)

// manage brings the pods to their number and then to their template. In order
// it does one thing at a time: the first pod that is not well stops it.
func (r *run) manage() {
	for _, m := range r.members {
		if r.tend(m) && ordered(r.set) {
			return
		}
	}
	for _, m := range r.condemned {
		r.mendClaims(m)
	}
	sick := r.firstSick()
	for _, m := range r.condemned {
		r.dismiss(m, sick)
		if ordered(r.set) {
			return
		}
	}
	r.roll()
}

// tend looks after one pod, and reports whether those after it have to wait.
func (r *run) tend(m *member) (wait bool) {
	switch {
	case m.finished():
		if !m.leaving {
			r.delete(m)
		}
		return true // another is made when this one is gone
	case !m.made:
		r.create(m)
		return true
	}
	if m.Status.Phase == corev1.PodPending && !m.leaving {
		for _, c := range r.missingClaims(m) {
			r.do = append(r.do, r.makeClaim(m, c, nil))
		}
		r.mendClaims(m)
	}
	if ordered(r.set) && !r.well(m) {
		return true
	}
	if !m.leaving {
		r.mend(m)
	}
	return false
}

// well reports whether m has run long enough and will go on.
func (r *run) well(m *member) bool {
	ok, _ := r.available(m)
	return ok && m.ready() && !m.leaving
}

// firstSick is the pod of the lowest ordinal that is not available; it may go
// though those below it are not well.
func (r *run) firstSick() *member {
	all := slices.Clone(r.condemned)
	slices.Reverse(all)
	for _, m := range append(slices.Clone(r.members), all...) {
		if r.sick(m) {
			return m
		}
	}
	return nil
}

func (r *run) sick(m *member) bool {
	ok, _ := r.available(m)
	return !ok || m.leaving
}

// dismiss deletes a pod that is one too many, unless one below it has to be
// well first. One that has ended need not wait, other than upstream's: it
// would for ever.
func (r *run) dismiss(m, sick *member) {
	if !m.leaving && (!ordered(r.set) || r.well(m) || m == sick || m.finished()) {
		r.delete(m)
	}
}

// roll deletes pods of another template, the last first, down to the
// partition. Each must have come back and be available before the next goes.
func (r *run) roll() {
	rolling := r.set.Spec.UpdateStrategy.RollingUpdate
	if r.set.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType {
		return
	}
	partition := r.partition()
	if rolling != nil && rolling.MaxUnavailable != nil {
		r.rollSeveral(partition, rolling.MaxUnavailable)
		return
	}
	for i := len(r.members) - 1; i >= partition; i-- {
		m := r.members[i]
		if r.outdated(m) {
			r.delete(m)
			return
		}
		if r.sick(m) {
			return
		}
	}
}

func (r *run) partition() int {
	if rolling := r.set.Spec.UpdateStrategy.RollingUpdate; rolling != nil && rolling.Partition != nil {
		return int(*rolling.Partition)
	}
	return 0
}

func (r *run) outdated(m *member) bool {
	return m.made && !m.leaving && m.revision() != r.update.name
}

// rollSeveral deletes as many as may be unavailable at a time.
func (r *run) rollSeveral(partition int, limit *intstr.IntOrString) {
	most, err := intstr.GetScaledValueFromIntOrPercent(limit, len(r.members), false)
	if err != nil {
		return
	}
	room := max(1, most)
	for _, m := range r.members {
		if r.sick(m) {
			room--
		}
	}
	for i := len(r.members) - 1; i >= partition && room > 0; i-- {
		if m := r.members[i]; r.outdated(m) {
			r.delete(m)
			room--
		}
	}
}

// create makes m, and before it the claims that it lacks. It does not while
// one of them is on its way out.
func (r *run) create(m *member) {
	if r.blocked(m) {
		return
	}
	r.mendClaims(m)
	pod := ctrl.Action{
		Verb: ctrl.Create, Obj: m.Pod, Pace: ctrl.SlowStart,
		Then: r.told("SuccessfulCreate: Create Pod %s in StatefulSet %s successful", m.Name),
		Else: r.failed("FailedCreate: Create Pod %s in StatefulSet %s failed error: %v", m.Name),
	}
	missing := r.missingClaims(m)
	for _, c := range slices.Backward(missing) {
		pod = r.makeClaim(m, c, []ctrl.Action{pod})
	}
	m.made = true
	r.do = append(r.do, pod)
}

func (r *run) delete(m *member) {
	m.leaving, m.gone = true, !lingers(m.Pod)
	r.do = append(r.do, ctrl.Action{
		Verb: ctrl.Delete, Obj: m.Pod, Pace: ctrl.AtOnce,
		Then: r.told("SuccessfulDelete: Delete Pod %s in StatefulSet %s successful", m.Name),
		Else: r.failed("FailedDelete: Delete Pod %s in StatefulSet %s failed error: %v", m.Name),
	})
}

// lingers reports whether a deletion of p takes the time of its node.
func lingers(p *corev1.Pod) bool {
	grace := p.Spec.TerminationGracePeriodSeconds
	return len(p.Finalizers) > 0 || p.Spec.NodeName != "" && !ctrl.Finished(p) && (grace == nil || *grace > 0)
}

// mend gives a pod that was adopted, or changed by others, what makes it the
// set's.
func (r *run) mend(m *member) {
	r.mendClaims(m)
	if m.Labels[appsv1.StatefulSetPodNameLabel] == m.Name && r.mounts(m) || !ctrl.Owns(r.set, m) {
		return // well, or adopted by this very plan
	}
	for _, c := range r.missingClaims(m) {
		r.do = append(r.do, r.makeClaim(m, c, nil))
	}
	p := m.DeepCopy()
	identify(p, m.n)
	r.mount(p, m.n)
	r.do = append(r.do, ctrl.Action{
		Verb: ctrl.Update, Obj: p,
		Then: r.told("SuccessfulUpdate: Update Pod %s in StatefulSet %s successful", m.Name),
		Else: r.failed("FailedUpdate: Update Pod %s in StatefulSet %s failed error: %v", m.Name),
	})
}

func (r *run) told(format, pod string) func(apis.Object) []ctrl.Action {
	return func(apis.Object) []ctrl.Action { return []ctrl.Action{ctrl.Tell(r.set, format, pod, r.set.Name)} }
}

// failed is what follows where an action does: an event, and the status
// without what the plan would have changed.
func (r *run) failed(format, pod string) func(error) []ctrl.Action {
	return func(err error) []ctrl.Action {
		if apierrors.IsAlreadyExists(err) {
			return nil // the next look will see whose it is
		}
		return append([]ctrl.Action{ctrl.Complain(r.set, format, pod, r.set.Name, err)}, r.write(r.unchanged)...)
	}
}
