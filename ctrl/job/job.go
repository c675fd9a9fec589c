// Package job runs the pods of a Job until as many have succeeded as it asks
// for, or too many failed. A pod is counted once, whatever happens to it or to
// us: a finalizer keeps it until the status names it.
package job

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/ctrl"
)

const (
	tracking = batchv1.JobTrackingFinalizer
	// burst is the most pods created or deleted in one plan.
	burst = 500
	// mostUncounted is the most pods that a status names, so that it stays small.
	mostUncounted = 500
)

// Controller is the job controller.
var Controller = ctrl.Controller[*batchv1.Job, input]{
	Name:    "job-controller",
	Workers: 5,
	Reads: []ctrl.Read{
		ctrl.Dependents(kind, func(w ctrl.World, p *corev1.Pod) []ctrl.Key {
			return ctrl.Selecting(w, p, func(j *batchv1.Job) labels.Selector { return ctrl.Selector(j.Spec.Selector) })
		}),
	},
	Writes: []ctrl.Write{
		ctrl.May(&corev1.Pod{}, ctrl.Create, ctrl.Delete, ctrl.Patch),
		ctrl.May(&batchv1.Job{}, ctrl.UpdateStatus, ctrl.Check),
	},
	Gather: gather,
	Decide: decide,
}.Erase()

var kind = batchv1.SchemeGroupVersion.WithKind("Job")

type input struct {
	job    *batchv1.Job
	pods   []*corev1.Pod // controlled by job or by nobody
	record record
	now    time.Time
}

func gather(w ctrl.World, j *batchv1.Job) input {
	in := input{job: j, now: w.Now}
	in.record, _ = w.Memo.(record)
	if !finished(j) {
		in.pods = ctrl.Owned[*corev1.Pod](w, j)
		slices.SortFunc(in.pods, func(a, b *corev1.Pod) int {
			return cmp.Or(cmp.Compare(indexOf(a), indexOf(b)), cmp.Compare(a.Name, b.Name))
		})
	}
	return in
}

// finished reports whether nothing about j will change any more.
func finished(j *batchv1.Job) bool {
	return isTrue(j, batchv1.JobComplete) != nil || isTrue(j, batchv1.JobFailed) != nil
}

// isTrue is the condition of j of that type, nil where it is not true.
func isTrue(j *batchv1.Job, t batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range j.Status.Conditions {
		if c := &j.Status.Conditions[i]; c.Type == t && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	return nil
}

// others reports whether j is for somebody else to run.
func others(j *batchv1.Job) bool {
	return j.Spec.ManagedBy != nil && *j.Spec.ManagedBy != batchv1.JobControllerName
}

func suspended(j *batchv1.Job) bool { return j.Spec.Suspend != nil && *j.Spec.Suspend }

func indexed(j *batchv1.Job) bool {
	return j.Spec.CompletionMode != nil && *j.Spec.CompletionMode == batchv1.IndexedCompletion
}

// onlyFailed reports whether a pod that is being deleted is replaced only when
// it has ended.
func onlyFailed(j *batchv1.Job) bool {
	return j.Spec.PodReplacementPolicy != nil && *j.Spec.PodReplacementPolicy == batchv1.Failed
}

// A run is a decision in the making.
type run struct {
	input

	was    *batchv1.Job
	active []*corev1.Pod

	succeeded, failed     int // with those that the status does not count yet
	ready, terminating    int32
	before, done, broken  indexes             // that succeeded, as the status has it and now; that failed for good
	held                  map[int]*corev1.Pod // the last failed pod of an index, until another takes over its count
	verdict               *batchv1.JobCondition
	sealed                bool // the verdict was in the status already
	after                 time.Duration
	uncounted, uncountedF map[types.UID]bool
}

func decide(in input) ctrl.Plan {
	if finished(in.job) || others(in.job) {
		return ctrl.Plan{}
	}
	claim := ctrl.Claimant{Owner: in.job, Kind: kind, Picks: ctrl.Selector(in.job.Spec.Selector), Finalizer: tracking}
	mine, do := ctrl.Claim(claim, in.pods)
	r := newRun(in, mine)
	r.judge()
	var act, told []ctrl.Action
	if r.verdict != nil {
		act = r.stop()
	} else {
		act = r.manage()
		r.complete()
		if r.verdict == nil {
			told = r.noteSuspension()
		}
	}
	do = append(append(append(do, act...), told...), r.track()...)
	return ctrl.Plan{Do: do, After: r.after, Memo: r.record}
}

func newRun(in input, mine []*corev1.Pod) *run {
	r := &run{input: in, was: in.job, uncounted: map[types.UID]bool{}, uncountedF: map[types.UID]bool{}}
	r.job = in.job.DeepCopy()
	if r.job.Status.UncountedTerminatedPods == nil {
		r.job.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	}
	for _, uid := range r.job.Status.UncountedTerminatedPods.Succeeded {
		r.uncounted[uid] = true
	}
	for _, uid := range r.job.Status.UncountedTerminatedPods.Failed {
		r.uncountedF[uid] = true
	}
	r.pods = nil
	for _, p := range mine {
		if !ctrl.Owns(in.job, p) && !tracked(p) { // adopted by this very plan, which gives it the finalizer
			p = p.DeepCopy()
			p.Finalizers = append(p.Finalizers, tracking)
		}
		r.pods = append(r.pods, p)
		if ctrl.Active(p) {
			r.active = append(r.active, p)
			if ctrl.Ready(p) {
				r.ready++
			}
		}
		if ctrl.Terminating(p) {
			r.terminating++
		}
	}
	if r.job.Status.StartTime == nil && !suspended(r.job) {
		r.job.Status.StartTime = r.second()
	}
	r.count()
	return r
}

func (r *run) second() *metav1.Time { return &metav1.Time{Time: r.now.Truncate(time.Second)} }

func tracked(p *corev1.Pod) bool { return slices.Contains(p.Finalizers, tracking) }

// indexOf is the completion index of p, -1 where it has none.
func indexOf(p *corev1.Pod) int {
	i, err := strconv.Atoi(p.Annotations[batchv1.JobCompletionIndexAnnotation])
	if err != nil || i < 0 {
		return -1
	}
	return i
}

// valid reports whether p can count at all.
func (r *run) valid(p *corev1.Pod) bool {
	i := indexOf(p)
	return !indexed(r.job) || i >= 0 && i < int(*r.job.Spec.Completions)
}

// lost reports whether p failed. One that was deleted before it could has,
// unless the job waits for it to end by itself.
func (r *run) lost(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodFailed ||
		!onlyFailed(r.job) && p.DeletionTimestamp != nil && p.Status.Phase != corev1.PodSucceeded
}

// count adds what has finished to what the status counts already.
func (r *run) count() {
	var good, bad []*corev1.Pod
	failures := 0
	for _, p := range r.pods {
		switch {
		case !tracked(p) || !r.valid(p):
		case p.Status.Phase == corev1.PodSucceeded && !r.uncounted[p.UID]:
			good = append(good, p)
		case r.lost(p) && !r.uncountedF[p.UID]:
			bad = append(bad, p)
			if rule(r.job.Spec.PodFailurePolicy, p).counts() {
				failures++
			}
		}
	}
	r.record = r.record.note(good, bad)
	r.succeeded = int(r.job.Status.Succeeded) + len(good) + len(r.uncounted)
	r.failed = int(r.job.Status.Failed) + failures + len(r.uncountedF)
	if indexed(r.job) {
		r.countIndexes()
	}
}

func (r *run) countIndexes() {
	limit := int(*r.job.Spec.Completions)
	r.before = parse(r.job.Status.CompletedIndexes, limit)
	if r.job.Status.FailedIndexes != nil {
		r.broken = parse(*r.job.Status.FailedIndexes, limit)
	}
	var good, bad []int
	for _, p := range r.pods {
		if !tracked(p) || !r.valid(p) {
			continue
		}
		if p.Status.Phase == corev1.PodSucceeded {
			good = append(good, indexOf(p))
		} else if r.lost(p) && r.breaks(p) {
			bad = append(bad, indexOf(p))
		}
	}
	r.done = r.before.with(of(good))
	r.succeeded = r.done.len()
	if r.job.Spec.BackoffLimitPerIndex != nil {
		r.broken = r.broken.with(of(bad))
		r.held = r.holds()
	}
}

// breaks reports whether with p its index has failed for good.
func (r *run) breaks(p *corev1.Pod) bool {
	if r.job.Spec.BackoffLimitPerIndex == nil {
		return false
	}
	v := rule(r.job.Spec.PodFailurePolicy, p)
	return v.action == batchv1.PodFailurePolicyActionFailIndex ||
		v.counts() && number(p, batchv1.JobIndexFailureCountAnnotation) >= int(*r.job.Spec.BackoffLimitPerIndex)
}

// holds are the failed pods whose index has neither ended nor another pod yet:
// the next one has to go on counting from them.
func (r *run) holds() map[int]*corev1.Pod {
	busy := of(indexesOf(r.active))
	out := map[int]*corev1.Pod{}
	for _, p := range r.pods {
		i := indexOf(p)
		if !tracked(p) || !r.valid(p) || !r.lost(p) || r.done.has(i) || r.broken.has(i) || busy.has(i) {
			continue
		}
		if had := out[i]; had == nil || failures(had) <= failures(p) && !ended(p).Before(ended(had)) {
			out[i] = p
		}
	}
	return out
}

func indexesOf(pods []*corev1.Pod) (out []int) {
	for _, p := range pods {
		if i := indexOf(p); i >= 0 {
			out = append(out, i)
		}
	}
	return out
}

func number(p *corev1.Pod, annotation string) int {
	n, err := strconv.ParseUint(p.Annotations[annotation], 10, 31)
	if err != nil {
		return 0
	}
	return int(n)
}

// failures is how often the index of p failed before it, counted or not.
func failures(p *corev1.Pod) int {
	return number(p, batchv1.JobIndexFailureCountAnnotation) + number(p, batchv1.JobIndexIgnoredFailureCountAnnotation)
}
