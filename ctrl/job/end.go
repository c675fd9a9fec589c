package job

import (
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/ctrl"
)

// judge finds out whether the job has come to its end, and why. What the
// status says already stands.
func (r *run) judge() {
	spec := &r.job.Spec
	if c := isTrue(r.job, batchv1.JobSuccessCriteriaMet); c != nil {
		r.verdict, r.sealed = c, true
		return
	}
	if c := isTrue(r.job, batchv1.JobFailureTarget); c != nil {
		r.verdict, r.sealed = c, true
		return
	}
	for _, p := range r.pods {
		if m := rule(spec.PodFailurePolicy, p).message; m != "" && r.lost(p) {
			r.fail(batchv1.JobReasonPodFailurePolicy, m)
			return
		}
	}
	switch {
	case r.failed > int(*spec.BackoffLimit) || r.restarted():
		r.fail(batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit")
	case r.overdue():
		r.fail(batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline")
	case spec.BackoffLimitPerIndex != nil && spec.MaxFailedIndexes != nil && r.broken.len() > int(*spec.MaxFailedIndexes):
		r.fail(batchv1.JobReasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes")
	case spec.BackoffLimitPerIndex != nil && r.broken.len() > 0 && r.broken.len()+r.done.len() >= int(*spec.Completions):
		r.fail(batchv1.JobReasonFailedIndexes, "Job has failed indexes")
	case indexed(r.job):
		if m := enough(spec.SuccessPolicy, int(*spec.Completions), r.done); m != "" {
			r.verdict = r.condition(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonSuccessPolicy, m)
		}
	}
}

func (r *run) fail(reason, message string) {
	r.verdict = r.condition(batchv1.JobFailureTarget, reason, message)
}

func (r *run) condition(t batchv1.JobConditionType, reason, message string) *batchv1.JobCondition {
	return &batchv1.JobCondition{
		Type: t, Status: corev1.ConditionTrue, Reason: reason, Message: message, LastProbeTime: *r.second(), LastTransitionTime: *r.second(),
	}
}

// restarted reports whether containers that are restarted in place failed too often.
func (r *run) restarted() bool {
	if r.job.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return false
	}
	n := int32(0)
	for _, p := range r.pods {
		if p.Status.Phase != corev1.PodRunning && p.Status.Phase != corev1.PodPending {
			continue
		}
		for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			n += s.RestartCount
		}
	}
	return n > 0 && n >= *r.job.Spec.BackoffLimit
}

// overdue reports whether the job has been active for too long, and where it
// has not yet, looks again when it will have.
func (r *run) overdue() bool {
	d, start := r.job.Spec.ActiveDeadlineSeconds, r.job.Status.StartTime
	if d == nil || start == nil || suspended(r.job) {
		return false
	}
	left := time.Duration(*d)*time.Second - r.now.Sub(start.Time)
	r.after = ctrl.Soonest(r.after, max(0, left))
	return left <= 0
}

// complete finds out whether all is done, when no pod is left active.
func (r *run) complete() {
	want := 1
	if r.job.Spec.Completions != nil {
		want = int(*r.job.Spec.Completions)
	}
	if r.succeeded >= want && len(r.active) == 0 {
		r.verdict = r.condition(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods")
	}
}

// noteSuspension tells when the job was suspended, or goes on. Its time
// begins anew then.
func (r *run) noteSuspension() []ctrl.Action {
	if r.job.DeletionTimestamp != nil {
		return nil
	}
	had := slices.IndexFunc(r.job.Status.Conditions, func(c batchv1.JobCondition) bool { return c.Type == batchv1.JobSuspended })
	is, reason, message := corev1.ConditionFalse, "JobResumed", "Job resumed"
	if suspended(r.job) {
		is, reason, message = corev1.ConditionTrue, "JobSuspended", "Job suspended"
	} else if had < 0 {
		return nil
	}
	c := r.condition(batchv1.JobSuspended, reason, message)
	c.Status = is
	switch {
	case had < 0:
		r.job.Status.Conditions = append(r.job.Status.Conditions, *c)
	case r.job.Status.Conditions[had].Status != is || r.job.Status.Conditions[had].Reason != reason:
		r.job.Status.Conditions[had] = *c
	default:
		return nil
	}
	if is == corev1.ConditionTrue {
		r.job.Status.StartTime = nil
		return []ctrl.Action{ctrl.Tell(r.was, "Suspended: %s", message)}
	}
	r.job.Status.StartTime = r.second()
	return []ctrl.Action{ctrl.Tell(r.was, "Resumed: %s", message)}
}

// close adds the last condition to j, where nothing is left to wait for, and
// tells of it.
func (r *run) close(j *batchv1.Job) []ctrl.Action {
	u := j.Status.UncountedTerminatedPods
	if r.verdict == nil || u != nil && len(u.Succeeded)+len(u.Failed) > 0 || r.terminating > 0 {
		return nil
	}
	last := r.condition(batchv1.JobFailed, r.verdict.Reason, r.verdict.Message)
	event := ctrl.Complain(r.was, "%s: %s", last.Reason, last.Message)
	if r.verdict.Type == batchv1.JobSuccessCriteriaMet {
		last.Type = batchv1.JobComplete
		j.Status.CompletionTime = &metav1.Time{Time: last.LastTransitionTime.Time}
		event = ctrl.Tell(r.was, "Completed: Job completed")
	}
	j.Status.Conditions = append(j.Status.Conditions, *last)
	do := []ctrl.Action{event}
	if c := j.Spec.Completions; c != nil && last.Type == batchv1.JobComplete && j.Status.Succeeded > *c {
		do = append(do, ctrl.Complain(r.was, "TooManySucceededPods: Too many succeeded pods running after completion count reached"))
	}
	return do
}
