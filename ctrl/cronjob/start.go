package cronjob

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/ctrl"
)

// start makes a job if it is time to, and tells when to look again, 0 for not
// before something changes. A job that is made brings the status with it.
func (r *run) start() (after time.Duration, started bool) {
	spec := &r.cron.Spec
	zone := time.UTC
	if spec.TimeZone != nil {
		var err error
		if zone, err = time.LoadLocation(*spec.TimeZone); err != nil {
			r.once(ctrl.Complain(r.cron, "UnknownTimeZone: invalid timeZone: %q: %v", *spec.TimeZone, err), "")
			return 0, false
		}
	}
	if spec.Suspend != nil && *spec.Suspend {
		return 0, false
	}
	if strings.Contains(spec.Schedule, "TZ") {
		r.once(ctrl.Complain(r.cron, "UnsupportedSchedule: CRON_TZ or TZ used in schedule %q is not officially supported, "+
			"see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details", spec.Schedule), "")
	}
	s, err := parse(r.next.schedule)
	if err != nil {
		r.once(ctrl.Complain(r.cron, "UnparseableSchedule: unparseable schedule: %q : %v", spec.Schedule, err), "")
		return 0, false
	}
	p, err := r.past(s, spec.StartingDeadlineSeconds)
	if err != nil {
		r.once(ctrl.Complain(r.cron, "InvalidSchedule: invalid schedule: %s : %v", spec.Schedule, err), "")
		return 0, false
	}
	if !p.last.IsZero() && r.due(p) {
		started = r.make(p.last, zone)
	}
	return r.wait(s), started
}

// due reports whether a job is to be made for the last time of p, and makes
// room for it.
func (r *run) due(p past) bool {
	spec := &r.cron.Spec
	if p.missed > many {
		r.once(ctrl.Complain(r.cron, "TooManyMissedTimes: too many missed start times. "+
			"Set or decrease .spec.startingDeadlineSeconds or check clock skew"), "")
	}
	if d := spec.StartingDeadlineSeconds; d != nil && p.last.Add(time.Duration(*d)*time.Second).Before(r.now) {
		r.once(ctrl.Complain(r.cron, "MissSchedule: Missed scheduled time to start a job: %s", p.last.UTC().Format(time.RFC1123Z)), "")
		return false
	}
	name := r.name(p.last)
	made := slices.ContainsFunc(r.status.Active, func(ref corev1.ObjectReference) bool { return ref.Name == name })
	if made || r.others[name] || r.status.LastScheduleTime.Equal(&metav1.Time{Time: p.last}) {
		return false
	}
	switch spec.ConcurrencyPolicy {
	case batchv1.ForbidConcurrent:
		if len(r.status.Active) > 0 {
			r.once(ctrl.Tell(r.cron, "JobAlreadyActive: Not starting job because prior execution is running and concurrency policy is Forbid"), p.last.String())
			return false
		}
	case batchv1.ReplaceConcurrent:
		for _, j := range r.jobs {
			if r.active(j.UID) {
				r.delete(j)
			}
		}
	case batchv1.AllowConcurrent:
	}
	return true
}

// name is that of the job for a time; two for the same time cannot be.
func (r *run) name(at time.Time) string { return fmt.Sprintf("%s-%d", r.cron.Name, at.Unix()/60) }

// lost is the name of a job that was made, though the status does not say so
// because that could not be written. It is empty where there is none.
func (r *run) lost() string {
	s, err := parse(r.next.schedule)
	if err != nil {
		return ""
	}
	p, err := r.past(s, r.cron.Spec.StartingDeadlineSeconds)
	if err != nil || p.last.IsZero() || r.status.LastScheduleTime.Equal(&metav1.Time{Time: p.last}) {
		return ""
	}
	return r.name(p.last)
}

// make makes the job for a time, or finds it where it was made already, and
// notes it in the status. It reports whether the writing of that is seen to.
func (r *run) make(at time.Time, zone *time.Location) bool {
	for _, j := range r.jobs {
		if j.Name == r.name(at) {
			r.note(j, at)
			return false
		}
	}
	j := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Name: r.name(at), Namespace: r.cron.Namespace,
			Labels: maps.Clone(r.cron.Spec.JobTemplate.Labels), Annotations: maps.Clone(r.cron.Spec.JobTemplate.Annotations),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(r.cron, kind)},
		},
		Spec: *r.cron.Spec.JobTemplate.Spec.DeepCopy(),
	}
	if j.Annotations == nil {
		j.Annotations = map[string]string{}
	}
	j.Annotations[batchv1.CronJobScheduledTimestampAnnotation] = at.In(zone).Format(time.RFC3339)
	r.do = append(r.do, ctrl.Action{
		Verb: ctrl.Create, Obj: j,
		Then: func(done apis.Object) []ctrl.Action {
			with := *r
			with.status = *r.status.DeepCopy()
			with.note(done.(*batchv1.Job), at)
			return append([]ctrl.Action{ctrl.Tell(r.cron, "SuccessfulCreate: Created job %s", done.GetName())}, with.write()...)
		},
		Else: func(err error) []ctrl.Action {
			if apierrors.IsAlreadyExists(err) {
				return r.write() // the next look will see whose it is
			}
			return append([]ctrl.Action{ctrl.Complain(r.cron, "FailedCreate: Error creating job: %v", err)}, r.write()...)
		},
	})
	return true
}

// note has j among the active jobs, as the last one.
func (r *run) note(j *batchv1.Job, at time.Time) {
	r.status.Active = append(r.status.Active, corev1.ObjectReference{
		APIVersion: jobKind.GroupVersion().String(), Kind: jobKind.Kind,
		Namespace: j.Namespace, Name: j.Name, UID: j.UID, ResourceVersion: j.ResourceVersion,
	})
	r.status.LastScheduleTime = &metav1.Time{Time: at}
}
