package batch

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/podspec"
)

var jobs = apis.Define(apis.Resource[*batchv1.Job]{
	Plural:     "jobs",
	Categories: []string{"all"},

	Default:  defaultJob,
	Prepare:  prepareJob,
	Validate: validateJob,
	Warn: func(j, old *batchv1.Job) []string {
		var w check.Warnings
		if old == nil {
			meta.WarnPodNames(&w, j.Name)
		} else if equality.Semantic.DeepEqual(j.Spec, old.Spec) {
			return nil
		}
		warnSpec(&w, check.At{}.Dot("spec"), &j.Spec)
		return w
	},
	Spec: func(j *batchv1.Job) any { return &j.Spec },
	Subs: []apis.Sub[*batchv1.Job]{meta.Status(validateJobStatus)},

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
	Lifetime: apis.Lifetime[*batchv1.Job]{
		OrphansDefault: true,
		OrphansWarning: "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning",
	},
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
		if c.Type == kind && c.Status == corev1.ConditionTrue {
			return true
		}
	}
	return false
}

func defaultJob(j *batchv1.Job) {
	defaultSpec(&j.Spec)
	s := &j.Spec
	if s.Parallelism == nil {
		s.Completions = cmp.Or(s.Completions, new(int32(1)))
		s.Parallelism = new(int32(1))
	}
	if s.BackoffLimit == nil {
		s.BackoffLimit = new(int32(6))
		if s.BackoffLimitPerIndex != nil {
			*s.BackoffLimit = math.MaxInt32
		}
	}
	if len(j.Labels) == 0 && s.Template.Labels != nil {
		j.Labels = s.Template.Labels
	}
	s.CompletionMode = cmp.Or(s.CompletionMode, new(batchv1.NonIndexedCompletion))
	s.Suspend = cmp.Or(s.Suspend, new(false))
	if s.PodReplacementPolicy == nil {
		s.PodReplacementPolicy = new(batchv1.TerminatingOrFailed)
		if s.PodFailurePolicy != nil {
			*s.PodReplacementPolicy = batchv1.Failed
		}
	}
	s.ManualSelector = cmp.Or(s.ManualSelector, new(false))
}

// defaultSpec fills what is filled in the spec of a CronJob's jobs too.
func defaultSpec(s *batchv1.JobSpec) {
	podspec.Default(&s.Template.Spec)
	if s.PodFailurePolicy == nil {
		return
	}
	for _, r := range s.PodFailurePolicy.Rules {
		for i := range r.OnPodConditions {
			r.OnPodConditions[i].Status = cmp.Or(r.OnPodConditions[i].Status, corev1.ConditionTrue)
		}
	}
}

// The labels of a job's pods, each under the name it had once and the one it has.
var (
	nameLabels = []string{"job-name", batchv1.JobNameLabel}
	uidLabels  = []string{"controller-uid", batchv1.ControllerUidLabel}
)

func prepareJob(j, old *batchv1.Job) {
	meta.KeepStatus(j, old)
	if old != nil {
		podspec.DropTemplate(&j.Spec.Template, &old.Spec.Template)
		return
	}
	podspec.DropTemplate(&j.Spec.Template, nil)
	if !*j.Spec.ManualSelector {
		generateSelector(j)
	}
}

// generateSelector gives the job a selector for its pods alone. Labels and
// selector may be those of other objects: they are copied before a change.
func generateSelector(j *batchv1.Job) {
	labels := map[string]string{}
	for i := range nameLabels {
		labels[nameLabels[i]], labels[uidLabels[i]] = j.Name, string(j.UID)
	}
	maps.Copy(labels, j.Spec.Template.Labels)
	j.Spec.Template.Labels = labels
	s := &metav1.LabelSelector{}
	if j.Spec.Selector != nil {
		s = j.Spec.Selector.DeepCopy()
	}
	match := map[string]string{batchv1.ControllerUidLabel: string(j.UID)}
	maps.Copy(match, s.MatchLabels)
	s.MatchLabels = match
	j.Spec.Selector = s
}

func warnSpec(w *check.Warnings, at check.At, s *batchv1.JobSpec) {
	if indexed(s) && meta.Deref(s.Completions, 0) > manyCompletions && meta.Deref(s.Parallelism, 0) > highParallelism {
		w.At(at, "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, "+
			"Kubernetes might not be able to track completedIndexes when a big number of indexes fail")
	}
	w.Add(podspec.Template(&s.Template, nil).Warn(at.Dot("template"))...)
}
