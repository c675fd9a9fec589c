package job

import (
	"reflect"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/ctrl"
)

// track counts the pods that have ended, in two steps: the status names them
// and they lose their finalizer; then they are added to the counters. Should
// we stop in between, the next look sees which of those named are still held.
func (r *run) track() []ctrl.Action {
	st := &r.job.Status
	st.Active, st.Ready, st.Terminating = int32(len(r.active)), new(r.ready), new(r.terminating)
	held := map[types.UID]bool{}
	for _, p := range r.pods {
		if tracked(p) {
			held[p.UID] = true
		}
	}
	settle(st, held)
	release, all := r.name()
	if indexed(r.job) {
		st.CompletedIndexes, st.Succeeded = r.before.String(), int32(r.before.len())
		if r.job.Spec.BackoffLimitPerIndex != nil {
			st.FailedIndexes = new(r.broken.String())
		}
	}
	if r.verdict != nil && !r.sealed {
		st.Conditions = append(slices.Clone(st.Conditions), *r.verdict)
	}
	if same(&r.was.Status, st) {
		return r.after2(r.was, release, held, all)
	}
	return []ctrl.Action{{Verb: ctrl.UpdateStatus, Obj: r.job, Then: func(done apis.Object) []ctrl.Action {
		return r.after2(done.(*batchv1.Job), release, held, all)
	}}}
}

// same compares but for an empty list of uncounted pods, which may be none.
func same(a, b *batchv1.JobStatus) bool {
	if a.UncountedTerminatedPods == nil && len(b.UncountedTerminatedPods.Succeeded)+len(b.UncountedTerminatedPods.Failed) == 0 {
		c := *a
		c.UncountedTerminatedPods = b.UncountedTerminatedPods
		a = &c
	}
	return reflect.DeepEqual(a, b)
}

// settle adds to the counters the pods that the status names and nothing holds
// any more, and reports whether there were any.
func settle(st *batchv1.JobStatus, held map[types.UID]bool) bool {
	u := st.UncountedTerminatedPods
	n, m := len(u.Succeeded), len(u.Failed)
	free := func(uid types.UID) bool { return !held[uid] }
	good, bad := slices.DeleteFunc(slices.Clone(u.Succeeded), free), slices.DeleteFunc(slices.Clone(u.Failed), free)
	st.Succeeded += int32(n - len(good))
	st.Failed += int32(m - len(bad))
	if len(good) == n && len(bad) == m {
		return false
	}
	st.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{Succeeded: none(good), Failed: none(bad)}
	return true
}

func none(uids []types.UID) []types.UID {
	if len(uids) == 0 {
		return nil
	}
	return uids
}

// name puts the pods that have ended into the status and returns those to be
// let go; all is false where there are more than a status should name.
func (r *run) name() (release []*corev1.Pod, all bool) {
	u := r.job.Status.UncountedTerminatedPods.DeepCopy()
	var good []int
	success := r.verdict != nil && r.verdict.Type == batchv1.JobSuccessCriteriaMet
	for _, p := range r.pods {
		lost := r.lost(p)
		if !tracked(p) || !r.free(p, lost) {
			continue
		}
		release = append(release, p)
		switch {
		case p.Status.Phase == corev1.PodSucceeded && !r.uncountedF[p.UID]:
			good = r.nameSuccess(u, good, p)
		case lost || r.verdict != nil && !success: // the job is over: whatever still runs has failed
			if !r.uncountedF[p.UID] && r.valid(p) && rule(r.job.Spec.PodFailurePolicy, p).counts() {
				u.Failed = append(u.Failed, p.UID)
			}
		}
		if len(good)+len(u.Succeeded)+len(u.Failed) >= mostUncounted {
			break
		}
	}
	r.job.Status.UncountedTerminatedPods = u
	if indexed(r.job) {
		r.before = r.before.with(of(good))
	}
	return release, len(good)+len(u.Succeeded)+len(u.Failed) < mostUncounted
}

// nameSuccess names a pod in u, or its index among those that are good, which
// is enough to count it once.
func (r *run) nameSuccess(u *batchv1.UncountedTerminatedPods, good []int, p *corev1.Pod) []int {
	if indexed(r.job) {
		if r.valid(p) && !r.before.has(indexOf(p)) {
			good = append(good, indexOf(p))
		}
	} else if !r.uncounted[p.UID] {
		u.Succeeded = append(u.Succeeded, p.UID)
	}
	return good
}

// free reports whether p need not be held any more.
func (r *run) free(p *corev1.Pod, lost bool) bool {
	if r.job.DeletionTimestamp != nil || r.verdict != nil || p.Status.Phase == corev1.PodSucceeded {
		return true
	}
	return lost && r.held[indexOf(p)] != p
}

// after2 is the second step, from the job as the first one left it.
func (r *run) after2(j *batchv1.Job, release []*corev1.Pod, held map[types.UID]bool, all bool) (do []ctrl.Action) {
	for _, p := range release {
		do = append(do, ctrl.DropFinalizer(p, tracking))
		delete(held, p.UID)
	}
	out := j.DeepCopy()
	changed := out.Status.UncountedTerminatedPods != nil && settle(&out.Status, held)
	var events []ctrl.Action
	if all {
		events = r.close(out)
	}
	if changed || len(events) > 0 {
		do = append(do, ctrl.Action{Verb: ctrl.UpdateStatus, Obj: out})
	}
	return append(do, events...)
}
