package batch

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var cronJobs = apis.Define(apis.Resource[*batchv1.CronJob]{
	Plural:     "cronjobs",
	Short:      []string{"cj"},
	Categories: []string{"all"},

	Prepare: meta.KeepStatus[*batchv1.CronJob],
	Spec:    func(c *batchv1.CronJob) any { return &c.Spec },
	Subs:    []apis.Sub[*batchv1.CronJob]{meta.Status[*batchv1.CronJob](nil)},

	Columns: append([]apis.Column[*batchv1.CronJob]{
		{Name: "Schedule", Cell: func(c *batchv1.CronJob, _ time.Time) any { return c.Spec.Schedule }},
		{Name: "Timezone", Cell: func(c *batchv1.CronJob, _ time.Time) any { return meta.Deref(c.Spec.TimeZone, "<none>") }},
		{Name: "Suspend", Type: "boolean", Cell: func(c *batchv1.CronJob, _ time.Time) any { return meta.Tristate(c.Spec.Suspend) }},
		{Name: "Active", Type: "integer", Cell: func(c *batchv1.CronJob, _ time.Time) any { return int64(len(c.Status.Active)) }},
		{Name: "Last Schedule", Cell: func(c *batchv1.CronJob, now time.Time) any {
			if c.Status.LastScheduleTime == nil {
				return "<none>"
			}
			return apis.Age(*c.Status.LastScheduleTime, now)
		}},
	}, meta.WorkloadColumns(
		func(c *batchv1.CronJob) *corev1.PodSpec { return &c.Spec.JobTemplate.Spec.Template.Spec },
		func(c *batchv1.CronJob) string { return metav1.FormatLabelSelector(c.Spec.JobTemplate.Spec.Selector) },
	)...),
})
