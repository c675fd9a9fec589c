package batch

import (
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

// A jobChange is a new status of a job beside the old one. Most rules hold
// only of what changes, so that jobs with old faults can still be reported on.
type jobChange struct {
	now, was           batchv1.JobStatus
	spec               *batchv1.JobSpec
	is, before         map[batchv1.JobConditionType]bool
	finished, finishes bool
}

func validateJobStatus(j, old *batchv1.Job) field.ErrorList {
	c := jobChange{now: j.Status, was: old.Status, spec: &j.Spec, is: conditionsOf(j), before: conditionsOf(old)}
	c.finished = c.is[batchv1.JobComplete] || c.is[batchv1.JobFailed]
	c.finishes = c.finished != (c.before[batchv1.JobComplete] || c.before[batchv1.JobFailed])
	at := check.New().Dot("status")
	check.NonNegative(at.Dot("active"), c.now.Active)
	check.NonNegative(at.Dot("succeeded"), c.now.Succeeded)
	check.NonNegative(at.Dot("failed"), c.now.Failed)
	check.NonNegativeIf(at.Dot("ready"), c.now.Ready)
	check.NonNegativeIf(at.Dot("terminating"), c.now.Terminating)
	if u := c.now.UncountedTerminatedPods; u != nil {
		uncounted(at.Dot("uncountedTerminatedPods"), u)
	}
	c.ends(at)
	c.end(at)
	c.numbers(at)
	c.success(at)
	c.forward(at)
	return at.Errors()
}

func conditionsOf(j *batchv1.Job) map[batchv1.JobConditionType]bool {
	is := map[batchv1.JobConditionType]bool{}
	for _, c := range j.Status.Conditions {
		is[c.Type] = jobIs(j, c.Type)
	}
	return is
}

func (c *jobChange) turns(kinds ...batchv1.JobConditionType) bool {
	for _, kind := range kinds {
		if c.is[kind] != c.before[kind] {
			return true
		}
	}
	return false
}

func uncounted(at check.At, u *batchv1.UncountedTerminatedPods) {
	seen := check.Set[types.UID]{}
	list := func(at check.At, uids []types.UID) {
		for i, uid := range uids {
			if uid == "" {
				at.Index(i).Invalid(uid, "must not be empty")
			} else if seen.Twice(uid) {
				at.Index(i).Duplicate(uid)
			}
		}
	}
	list(at.Dot("succeeded"), u.Succeeded)
	list(at.Dot("failed"), u.Failed)
}

// ends checks how and when the job ended.
func (c *jobChange) ends(at check.At) {
	conditions, completion := at.Dot("conditions"), at.Dot("completionTime")
	complete, failed := c.is[batchv1.JobComplete], c.is[batchv1.JobFailed]
	if complete && failed && c.turns(batchv1.JobComplete, batchv1.JobFailed) {
		conditions.Invalid(field.OmitValueType{}, "cannot set Complete=True and Failed=true conditions")
	}
	if complete && c.is[batchv1.JobFailureTarget] && c.turns(batchv1.JobComplete, batchv1.JobFailureTarget) {
		conditions.Invalid(field.OmitValueType{}, "cannot set Complete=True and FailureTarget=true conditions")
	}
	started := !equality.Semantic.DeepEqual(c.now.StartTime, c.was.StartTime)
	timed := !equality.Semantic.DeepEqual(c.now.CompletionTime, c.was.CompletionTime)
	if c.turns(batchv1.JobComplete) || timed {
		if c.now.CompletionTime != nil && !complete {
			completion.Invalid(c.now.CompletionTime, "cannot set completionTime when there is no Complete=True condition")
		}
		if c.now.CompletionTime == nil && complete {
			completion.Required("completionTime is required for Complete jobs")
		}
	}
	if (started || timed) && c.now.StartTime != nil && c.now.CompletionTime != nil && c.now.CompletionTime.Before(c.now.StartTime) {
		completion.Invalid(c.now.CompletionTime, "must be equal to or after `startTime`")
	}
	if failed && !c.is[batchv1.JobFailureTarget] && (c.turns(batchv1.JobFailed) || c.failedIndexesChange()) {
		conditions.Invalid(field.OmitValueType{}, "cannot set Failed=True condition without the FailureTarget=true condition")
	}
	if complete && !c.is[batchv1.JobSuccessCriteriaMet] && c.turns(batchv1.JobComplete, batchv1.JobSuccessCriteriaMet) {
		conditions.Invalid(field.OmitValueType{}, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition")
	}
}

// end checks what must be over when the job is.
func (c *jobChange) end(at check.At) {
	if !c.finished {
		return
	}
	if c.now.Active > 0 && (c.finishes || c.now.Active != c.was.Active) {
		at.Dot("active").Invalid(c.now.Active, "active>0 is invalid for finished job")
	}
	started := !equality.Semantic.DeepEqual(c.now.StartTime, c.was.StartTime)
	nothing := meta.Deref(c.spec.Suspend, false) && meta.Deref(c.spec.Completions, 1) == 0
	if c.now.StartTime == nil && (c.finishes || started) && !nothing {
		at.Dot("startTime").Required("startTime is required for finished job")
	}
	u := c.now.UncountedTerminatedPods
	if u != nil && len(u.Failed)+len(u.Succeeded) > 0 && (c.finishes || !equality.Semantic.DeepEqual(u, c.was.UncountedTerminatedPods)) {
		at.Dot("uncountedTerminatedPods").Invalid(check.Bare(u), "must be empty for finished job")
	}
}

func (c *jobChange) failedIndexesChange() bool {
	return !equality.Semantic.DeepEqual(c.now.FailedIndexes, c.was.FailedIndexes)
}

// numbers checks the indexes, and the counts of pods that go by them.
func (c *jobChange) numbers(at check.At) {
	completed, failed := at.Dot("completedIndexes"), at.Dot("failedIndexes")
	done, lost := c.now.CompletedIndexes, c.now.FailedIndexes
	completedChange, failedChange := done != c.was.CompletedIndexes, c.failedIndexesChange()
	if total := c.spec.Completions; total != nil {
		if _, err := count(done, *total); err != nil && completedChange {
			completed.Invalid(done, "error parsing completedIndexes: "+err.Error())
		}
		if lost != nil && failedChange && c.spec.BackoffLimitPerIndex != nil {
			if _, err := count(*lost, *total); err != nil {
				failed.Invalid(*lost, "error parsing failedIndexes: "+err.Error())
			}
		}
	}
	if completedChange && done != "" && !indexed(c.spec) {
		completed.Invalid(done, "cannot set non-empty completedIndexes when non-indexed completion mode")
	}
	if failedChange && lost != nil && c.spec.BackoffLimitPerIndex == nil {
		failed.Invalid(*lost, "cannot set non-null failedIndexes when backoffLimitPerIndex is null")
	}
	if (failedChange || completedChange) && lost != nil && c.spec.Completions != nil {
		if i, both := overlap(done, *lost, *c.spec.Completions); both {
			failed.Invalid(*lost, fmt.Sprintf("failedIndexes and completedIndexes overlap at index: %d", i))
		}
	}
	ready, terminating := c.now.Ready, c.now.Terminating
	if c.finished && meta.Deref(terminating, 0) > 0 && (c.finishes || !equality.Semantic.DeepEqual(terminating, c.was.Terminating)) {
		at.Dot("terminating").Invalid(terminating, "terminating>0 is invalid for finished job")
	}
	if ready != nil && *ready > c.now.Active && (c.now.Active != c.was.Active || !equality.Semantic.DeepEqual(ready, c.was.Ready)) {
		at.Dot("ready").Invalid(*ready, "cannot set more ready pods than active")
	}
}

func (c *jobChange) success(at check.At) {
	at = at.Dot("conditions")
	met := c.is[batchv1.JobSuccessCriteriaMet]
	if met && c.is[batchv1.JobFailed] {
		at.Invalid(field.OmitValueType{}, "cannot set SuccessCriteriaMet=True and Failed=true conditions")
	}
	if met && c.is[batchv1.JobFailureTarget] {
		at.Invalid(field.OmitValueType{}, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions")
	}
	if c.spec.SuccessPolicy != nil && !met && c.is[batchv1.JobComplete] {
		at.Invalid(field.OmitValueType{}, "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True")
	}
}

// forward demands that what was is not undone.
func (c *jobChange) forward(at check.At) {
	conditions := at.Dot("conditions")
	for _, kind := range []batchv1.JobConditionType{batchv1.JobFailed, batchv1.JobComplete, batchv1.JobFailureTarget} {
		if c.before[kind] && !c.is[kind] {
			conditions.Invalid(field.OmitValueType{}, fmt.Sprintf("cannot disable the terminal %s=True condition", kind))
		}
	}
	if c.now.Failed < c.was.Failed {
		at.Dot("failed").Invalid(c.now.Failed, "cannot decrease the failed counter")
	}
	// A job whose size follows its parallelism forgets those beyond it.
	elastic := indexed(c.spec) && equality.Semantic.DeepEqual(c.spec.Completions, c.spec.Parallelism)
	if c.now.Succeeded < c.was.Succeeded && !elastic {
		at.Dot("succeeded").Invalid(c.now.Succeeded, "cannot decrease the succeeded counter")
	}
	if now, was := c.now.CompletionTime, c.was.CompletionTime; now != nil && was != nil && !now.Equal(was) {
		at.Dot("completionTime").Invalid(now, "field is immutable")
	}
	resumes := c.before[batchv1.JobSuspended] && hasFalse(c.now.Conditions, batchv1.JobSuspended)
	if was := c.was.StartTime; was != nil && !was.Equal(c.now.StartTime) && !resumes && !meta.Deref(c.spec.Suspend, false) {
		at.Dot("startTime").Invalid(c.now.StartTime, "field is immutable for unsuspended job once set")
	}
	met, was := c.is[batchv1.JobSuccessCriteriaMet], c.before[batchv1.JobSuccessCriteriaMet]
	if was && !met {
		conditions.Invalid(field.OmitValueType{}, "cannot disable the SuccessCriteriaMet=True condition")
	}
	if c.before[batchv1.JobComplete] && !was && met {
		conditions.Invalid(field.OmitValueType{}, "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions")
	}
}

func hasFalse(all []batchv1.JobCondition, kind batchv1.JobConditionType) bool {
	for _, c := range all {
		if c.Type == kind && c.Status == "False" {
			return true
		}
	}
	return false
}
