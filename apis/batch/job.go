package batch

import (
	"fmt"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var jobs = apis.Define(apis.Resource[*batchv1.Job]{
	Plural:     "jobs",
	Categories: []string{"all"},

	Prepare: meta.KeepStatus[*batchv1.Job],
	Spec:    func(j *batchv1.Job) any { return &j.Spec },
	Subs:    []apis.Sub[*batchv1.Job]{meta.Status[*batchv1.Job](nil)},

	Fields: map[string]func(*batchv1.Job) string{
		"status.successful": func(j *batchv1.Job) string { return strconv.Itoa(int(j.Status.Succeeded)) },
	},
	Columns: append([]apis.Column[*batchv1.Job]{
		{Name: "Status", Cell: func(j *batchv1.Job, _ time.Time) any { return jobStatus(j) }},
		{Name: "Completions", Cell: func(j *batchv1.Job, _ time.Time) any {
			parallel := meta.Deref(j.Spec.Parallelism, 0)
			switch {
			case j.Spec.Completions != nil:
				return fmt.Sprintf("%d/%d", j.Status.Succeeded, *j.Spec.Completions)
			case parallel > 1:
				return fmt.Sprintf("%d/1 of %d", j.Status.Succeeded, parallel)
			}
			return fmt.Sprintf("%d/1", j.Status.Succeeded)
		}},
		{Name: "Duration", Cell: func(j *batchv1.Job, now time.Time) any {
			if j.Status.StartTime == nil {
				return ""
			}
			if j.Status.CompletionTime != nil {
				now = j.Status.CompletionTime.Time
			}
			return duration.HumanDuration(now.Sub(j.Status.StartTime.Time))
		}},
	}, meta.WorkloadColumns(
		func(j *batchv1.Job) *corev1.PodSpec { return &j.Spec.Template.Spec },
		func(j *batchv1.Job) string { return metav1.FormatLabelSelector(j.Spec.Selector) },
	)...),
	Lifetime: apis.Lifetime[*batchv1.Job]{OrphansDefault: true},
})

// jobStatus is the one condition that says most of j.
func jobStatus(j *batchv1.Job) string {
	switch {
	case jobIs(j, batchv1.JobComplete):
		return "Complete"
	case jobIs(j, batchv1.JobFailed):
		return "Failed"
	case j.DeletionTimestamp != nil:
		return "Terminating"
	case jobIs(j, batchv1.JobSuspended):
		return "Suspended"
	case jobIs(j, batchv1.JobFailureTarget):
		return "FailureTarget"
	case jobIs(j, batchv1.JobSuccessCriteriaMet):
		return "SuccessCriteriaMet"
	}
	return "Running"
}

func jobIs(j *batchv1.Job, kind batchv1.JobConditionType) bool {
	for _, c := range j.Status.Conditions {
		if c.Type == kind {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
