// Package cronjob makes a Job of a CronJob's template whenever its schedule
// says so, and deletes those that have ended and are too many to keep. What
// becomes of a Job until then is the business of package job.
package cronjob

import (
	"cmp"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/ctrl"
)

// Controller is the cron job controller.
var Controller = ctrl.Controller[*batchv1.CronJob, input]{
	Name:    "cronjob-controller",
	Workers: 5,
	Reads:   []ctrl.Read{ctrl.Dependents[*batchv1.Job](kind, nil)},
	Writes: []ctrl.Write{
		ctrl.May(&batchv1.Job{}, ctrl.Create, ctrl.Delete, ctrl.CheckGone),
		ctrl.May(&batchv1.CronJob{}, ctrl.UpdateStatus),
	},
	Gather: gather,
	Decide: decide,
}.Erase()

var (
	kind    = batchv1.SchemeGroupVersion.WithKind("CronJob")
	jobKind = batchv1.SchemeGroupVersion.WithKind("Job")
)

type input struct {
	cron   *batchv1.CronJob
	jobs   []*batchv1.Job  // controlled by cron, in the order in which they started
	others map[string]bool // jobs by the name of one of cron's that it does not control
	memo   memo
	now    time.Time
}

// A memo is what was the case at the last look.
type memo struct {
	schedule string          // with its time zone; empty where nobody has looked before
	since    time.Time       // when the schedule became another one; what it says of before does not count
	told     map[string]bool // what need not be told again while it is still so
}

func gather(w ctrl.World, c *batchv1.CronJob) input {
	in := input{cron: c, now: w.Now, others: map[string]bool{}}
	in.memo, _ = w.Memo.(memo)
	in.jobs = ctrl.Find[*batchv1.Job](w, ctrl.ByOwner, string(c.UID))
	slices.SortFunc(in.jobs, byStart)
	for _, j := range ctrl.In[*batchv1.Job](w, c.Namespace) {
		if strings.HasPrefix(j.Name, c.Name+"-") && !ctrl.Owns(c, j) {
			in.others[j.Name] = true
		}
	}
	return in
}

// byStart puts what has not started yet last.
func byStart(a, b *batchv1.Job) int {
	s, t := a.Status.StartTime, b.Status.StartTime
	switch {
	case s == nil && t == nil:
		return cmp.Compare(a.Name, b.Name)
	case s == nil:
		return 1
	case t == nil:
		return -1
	}
	return cmp.Or(s.Compare(t.Time), cmp.Compare(a.Name, b.Name))
}

// A run is a decision in the making.
type run struct {
	input

	status batchv1.CronJobStatus
	next   memo
	do     []ctrl.Action
}

func decide(in input) ctrl.Plan {
	r := &run{input: in, status: *in.cron.Status.DeepCopy()}
	r.next = memo{schedule: spelled(in.cron), since: in.memo.since, told: map[string]bool{}}
	if in.memo.schedule != "" && in.memo.schedule != r.next.schedule {
		r.next.since = in.now
	}
	r.clean()
	r.count()
	if in.cron.DeletionTimestamp != nil {
		return ctrl.Plan{Do: append(r.do, r.write()...), Memo: r.next}
	}
	after, started := r.start()
	if !started {
		r.do = append(r.do, r.write()...)
	}
	return ctrl.Plan{Do: r.do, After: after, Memo: r.next}
}

// clean deletes jobs that have ended and are too many to keep, the oldest first.
func (r *run) clean() {
	drop := func(how batchv1.JobConditionType, limit *int32) {
		var ended []*batchv1.Job
		for _, j := range r.jobs {
			if end(j) == how && j.DeletionTimestamp == nil {
				ended = append(ended, j)
			}
		}
		if limit != nil {
			for _, j := range ended[:max(0, len(ended)-int(*limit))] {
				r.delete(j)
			}
		}
	}
	drop(batchv1.JobComplete, r.cron.Spec.SuccessfulJobsHistoryLimit)
	drop(batchv1.JobFailed, r.cron.Spec.FailedJobsHistoryLimit)
}

// end is how j ended, empty where it has not.
func end(j *batchv1.Job) batchv1.JobConditionType {
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return c.Type
		}
	}
	return ""
}

func (r *run) delete(j *batchv1.Job) {
	r.forget(j.UID)
	if j.DeletionTimestamp != nil {
		return
	}
	r.do = append(r.do, ctrl.Action{
		Verb: ctrl.Delete, Obj: j, Policy: metav1.DeletePropagationBackground,
		Then: func(apis.Object) []ctrl.Action {
			return []ctrl.Action{ctrl.Tell(r.cron, "SuccessfulDelete: Deleted job %s", j.Name)}
		},
		Else: func(err error) []ctrl.Action {
			return []ctrl.Action{ctrl.Complain(r.cron, "FailedDelete: Deleted job: %v", err)}
		},
	})
}

// forget takes a job from the active ones.
func (r *run) forget(uid types.UID) {
	r.status.Active = slices.DeleteFunc(r.status.Active, func(ref corev1.ObjectReference) bool { return ref.UID == uid })
}

func (r *run) active(uid types.UID) bool {
	return slices.ContainsFunc(r.status.Active, func(ref corev1.ObjectReference) bool { return ref.UID == uid })
}

// count brings the status to what the jobs are.
func (r *run) count() {
	known := map[types.UID]bool{}
	for _, j := range r.jobs {
		known[j.UID] = true
		how := end(j)
		switch {
		case how == "" && !r.active(j.UID) && j.DeletionTimestamp == nil && j.Name != r.lost():
			r.once(ctrl.Complain(r.cron, "UnexpectedJob: Saw a job that the controller did not create or forgot: %s", j.Name), "")
		case how != "" && r.active(j.UID):
			r.forget(j.UID)
			r.do = append(r.do, ctrl.Tell(r.cron, "SawCompletedJob: Saw completed job: %s, condition: %s", j.Name, how))
		}
		done, last := j.Status.CompletionTime, r.status.LastSuccessfulTime
		if how == batchv1.JobComplete && done != nil && (last == nil || done.After(last.Time)) {
			r.status.LastSuccessfulTime = done.DeepCopy()
		}
	}
	for _, ref := range slices.Clone(r.status.Active) {
		if known[ref.UID] {
			continue
		}
		if !r.others[ref.Name] {
			gone := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: r.cron.Namespace, Name: ref.Name}}
			r.do = append(r.do, ctrl.Action{Verb: ctrl.CheckGone, Obj: gone}) // it may only not have been seen yet
		}
		r.forget(ref.UID)
		r.do = append(r.do, ctrl.Tell(r.cron, "MissingJob: Active job went missing: %s", ref.Name))
	}
}

// once has a note told where it was not at the last look. What tells notes
// apart beside their text is about.
func (r *run) once(a ctrl.Action, about string) {
	key := a.Note + about
	if r.next.told[key] = true; !r.memo.told[key] {
		r.do = append(r.do, a)
	}
}

func (r *run) write() []ctrl.Action {
	if equality.Semantic.DeepEqual(r.status, r.cron.Status) {
		return nil
	}
	c := r.cron.DeepCopy()
	c.Status = r.status
	return []ctrl.Action{{Verb: ctrl.UpdateStatus, Obj: c}}
}
