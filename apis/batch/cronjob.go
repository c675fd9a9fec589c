package batch

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/podspec"
)

var cronJobs = apis.Define(apis.Resource[*batchv1.CronJob]{
	Plural:     "cronjobs",
	Short:      []string{"cj"},
	Categories: []string{"all"},

	Default: defaultCronJob,
	Prepare: func(c, old *batchv1.CronJob) {
		meta.KeepStatus(c, old)
		podspec.DropTemplate(&c.Spec.JobTemplate.Spec.Template, cronTemplate(old))
	},
	Validate: validateCronJob,
	Warn:     warnCronJob,
	Spec:     func(c *batchv1.CronJob) any { return &c.Spec },
	Subs: []apis.Sub[*batchv1.CronJob]{
		meta.Status(func(_, _ *batchv1.CronJob) field.ErrorList { return nil }),
	},

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

func defaultCronJob(c *batchv1.CronJob) {
	s := &c.Spec
	defaultSpec(&s.JobTemplate.Spec)
	s.ConcurrencyPolicy = cmp.Or(s.ConcurrencyPolicy, batchv1.AllowConcurrent)
	s.Suspend = cmp.Or(s.Suspend, new(false))
	s.SuccessfulJobsHistoryLimit = cmp.Or(s.SuccessfulJobsHistoryLimit, new(int32(3)))
	s.FailedJobsHistoryLimit = cmp.Or(s.FailedJobsHistoryLimit, new(int32(1)))
}

func cronTemplate(c *batchv1.CronJob) *corev1.PodTemplateSpec {
	if c == nil {
		return nil
	}
	return &c.Spec.JobTemplate.Spec.Template
}

func validateCronJob(c, old *batchv1.CronJob) field.ErrorList {
	root, s := check.New(), &c.Spec
	at := root.Dot("spec")
	zoned := old != nil && strings.Contains(old.Spec.Schedule, "TZ")
	schedule(at.Dot("schedule"), s, zoned)
	check.NonNegativeIf(at.Dot("startingDeadlineSeconds"), s.StartingDeadlineSeconds)
	if zone := s.TimeZone; zone != nil && (old == nil || old.Spec.TimeZone == nil || *old.Spec.TimeZone != *zone) {
		timeZone(at.Dot("timeZone"), zone)
	}
	check.ListedChoice(at.Dot("concurrencyPolicy"), s.ConcurrencyPolicy, batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent)
	template := at.Dot("jobTemplate.spec")
	spec(template, &s.JobTemplate.Spec, cronTemplate(old))
	if selector := s.JobTemplate.Spec.Selector; selector != nil {
		template.Dot("selector").Invalid(selector, "`selector` will be auto-generated")
	}
	if manual := s.JobTemplate.Spec.ManualSelector; meta.Deref(manual, false) {
		at := template.Dot("manualSelector")
		at.Add(field.NotSupported(at.Path(), manual, []string{"nil", "false"}))
	}
	check.NonNegativeIf(at.Dot("successfulJobsHistoryLimit"), s.SuccessfulJobsHistoryLimit)
	check.NonNegativeIf(at.Dot("failedJobsHistoryLimit"), s.FailedJobsHistoryLimit)
	if old == nil && len(c.Name) > 52 {
		root.Dot("metadata.name").Invalid(c.Name, "must be no more than 52 characters")
	}
	return root.Errors()
}

// schedule checks when jobs are made. One that was stored with a time zone in
// it may keep that.
func schedule(at check.At, s *batchv1.CronJobSpec, zoned bool) {
	if !at.Present(s.Schedule) {
		return
	}
	if err := parse(s.Schedule); err != nil {
		at.Invalid(s.Schedule, err.Error())
	}
	switch {
	case !strings.Contains(s.Schedule, "TZ"):
	case !zoned:
		at.Invalid(s.Schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead")
	case s.TimeZone != nil:
		at.Invalid(s.Schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule")
	}
}

// parse tells what is wrong with a schedule; the parser panics on some.
func parse(schedule string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("invalid schedule format: %v", r)
		}
	}()
	_, err = cron.ParseStandard(schedule)
	return err
}

var zoneName = regexp.MustCompile(`^[A-Za-z._0-9+][A-Za-z.\-_0-9+]{0,13}$`)

func timeZone(at check.At, zone *string) {
	if *zone == "" {
		at.Invalid(zone, "timeZone must be nil or non-empty string")
		return
	}
	for part := range strings.SplitSeq(*zone, "/") {
		if part == "." || part == ".." || !zoneName.MatchString(part) {
			at.Invalid(zone, "unknown time zone "+*zone)
			return
		}
	}
	if strings.EqualFold(*zone, "Local") {
		at.Invalid(zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones")
	}
	if _, err := time.LoadLocation(*zone); err != nil {
		at.Invalid(zone, err.Error())
	}
}

func warnCronJob(c, old *batchv1.CronJob) []string {
	var w check.Warnings
	if old == nil {
		meta.WarnPodNames(&w, c.Name)
	}
	if old == nil || !equality.Semantic.DeepEqual(c.Spec, old.Spec) {
		warnSpec(&w, check.At{}.Dot("spec.jobTemplate.spec"), &c.Spec.JobTemplate.Spec)
	}
	if old != nil && strings.Contains(c.Spec.Schedule, "TZ") {
		w.Add("cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, " +
			"see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details")
	}
	return w
}
