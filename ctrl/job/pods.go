package job

import (
	"maps"
	"slices"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/ctrl"
)

// stop deletes the pods that still run. Their finalizers stay: they are
// counted when they have ended.
func (r *run) stop() []ctrl.Action {
	pods := r.active
	r.ending(pods)
	return r.remove(pods, false)
}

// ending counts pods as being deleted.
func (r *run) ending(pods []*corev1.Pod) {
	for _, p := range pods {
		if ctrl.Ready(p) {
			r.ready--
		}
	}
	r.terminating += int32(len(pods))
	r.active = slices.DeleteFunc(slices.Clone(r.active), func(p *corev1.Pod) bool { return slices.Contains(pods, p) })
}

// remove deletes pods. Those that shall not count lose their finalizer before.
func (r *run) remove(pods []*corev1.Pod, uncounted bool) (do []ctrl.Action) {
	for _, p := range pods {
		if uncounted && tracked(p) {
			do = append(do, ctrl.DropFinalizer(p, tracking))
		}
	}
	for _, p := range pods {
		do = append(do, ctrl.Action{
			Verb: ctrl.Delete, Obj: p, Pace: ctrl.AtOnce,
			Then: r.told("SuccessfulDelete: Deleted pod: %s"),
			Else: func(err error) []ctrl.Action {
				return []ctrl.Action{ctrl.Complain(r.was, "FailedDelete: Error deleting: %v", err)}
			},
		})
	}
	return do
}

func (r *run) told(format string) func(apis.Object) []ctrl.Action {
	return func(done apis.Object) []ctrl.Action { return []ctrl.Action{ctrl.Tell(r.was, format, done.GetName())} }
}

// manage brings the active pods to the number that is wanted: by deletion, or
// else by creation, not both at a time.
func (r *run) manage() []ctrl.Action {
	if r.job.DeletionTimestamp != nil {
		return nil
	}
	want := r.want()
	surplus, left := r.repeated()
	if n := len(r.active) - want - len(surplus); n > 0 {
		worst, _ := ctrl.Ranking{Now: r.now}.Worst(left, n)
		surplus = append(surplus, worst...)
	}
	if len(surplus) > 0 {
		surplus = surplus[:min(len(surplus), burst)]
		do := r.remove(surplus, true)
		r.ending(surplus)
		return do
	}
	missing := want - len(r.active)
	if onlyFailed(r.job) {
		missing -= int(r.terminating)
	}
	if missing <= 0 || suspended(r.job) {
		return nil
	}
	return r.create(min(missing, burst))
}

// want is how many pods should be active.
func (r *run) want() int {
	switch parallelism := int(*r.job.Spec.Parallelism); {
	case suspended(r.job):
		return 0
	case r.job.Spec.Completions != nil:
		return max(0, min(int(*r.job.Spec.Completions)-r.succeeded, parallelism))
	case r.succeeded > 0: // one is enough; the others may end as they like
		return len(r.active)
	default:
		return parallelism
	}
}

// repeated are the active pods whose index is not one, or another's too.
func (r *run) repeated() (surplus, left []*corev1.Pod) {
	if !indexed(r.job) {
		return nil, r.active
	}
	by := map[int][]*corev1.Pod{}
	for _, p := range r.active {
		if r.valid(p) {
			by[indexOf(p)] = append(by[indexOf(p)], p)
		} else {
			surplus = append(surplus, p)
		}
	}
	for _, i := range slices.Sorted(maps.Keys(by)) {
		worst, best := ctrl.Ranking{Now: r.now}.Worst(by[i], len(by[i])-1)
		surplus, left = append(surplus, worst...), append(left, best...)
	}
	return surplus, left
}

// create makes n pods, or as many as may be made now.
func (r *run) create(n int) (do []ctrl.Action) {
	var which []int
	perIndex := r.job.Spec.BackoffLimitPerIndex != nil
	if !perIndex {
		if d := wait(r.record.failures, r.record.last, r.now); d > 0 {
			r.after = ctrl.Soonest(r.after, d)
			return nil
		}
	}
	if indexed(r.job) {
		taken := r.done.with(of(indexesOf(r.active))).with(r.broken)
		if onlyFailed(r.job) {
			taken = taken.with(of(indexesOf(r.leaving())))
		}
		which = taken.missing(n, int(*r.job.Spec.Completions))
		if perIndex {
			which = r.due(which)
		}
		n = len(which)
	}
	bare := *r // as it is without the new pods, for the case that they cannot be made
	bare.job = r.job.DeepCopy()
	for i := range n {
		pod := ctrl.PodFrom(&r.job.Spec.Template, r.was, kind)
		if !tracked(pod) {
			pod.Finalizers = append(pod.Finalizers, tracking)
		}
		if which != nil {
			r.number(pod, which[i])
		}
		r.active = append(slices.Clip(r.active), pod)
		do = append(do, ctrl.Action{
			Verb: ctrl.Create, Obj: pod, Pace: ctrl.SlowStart,
			Then: r.told("SuccessfulCreate: Created pod: %s"),
			Else: func(err error) []ctrl.Action {
				failed := bare
				failed.job = bare.job.DeepCopy()
				return append([]ctrl.Action{ctrl.Complain(r.was, "FailedCreate: Error creating: %v", err)}, failed.track()...)
			},
		})
	}
	return do
}

func (r *run) leaving() (out []*corev1.Pod) {
	for _, p := range r.pods {
		if ctrl.Terminating(p) {
			out = append(out, p)
		}
	}
	return out
}

// due are those of which that need not wait for their own back-off. Where all
// have to, it looks again when the first need not.
func (r *run) due(which []int) (out []int) {
	for _, i := range which {
		last := r.held[i]
		if last == nil {
			out = append(out, i)
			continue
		}
		d := wait(failures(last)+1, ended(last), r.now)
		if d == 0 {
			out = append(out, i)
		}
		r.after = ctrl.Soonest(r.after, d)
	}
	return out
}

// number makes pod the one of index i.
func (r *run) number(pod *corev1.Pod, i int) {
	const key = batchv1.JobCompletionIndexAnnotation
	text := strconv.Itoa(i)
	pod.Annotations, pod.Labels = put(pod.Annotations, key, text), put(pod.Labels, key, text)
	pod.Spec.Hostname = r.job.Name + "-" + text
	pod.GenerateName = generateName(r.job.Name, "-"+text+"-")
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for c := range list {
			if !slices.ContainsFunc(list[c].Env, func(e corev1.EnvVar) bool { return e.Name == "JOB_COMPLETION_INDEX" }) {
				list[c].Env = append(list[c].Env, corev1.EnvVar{Name: "JOB_COMPLETION_INDEX", ValueFrom: &corev1.EnvVarSource{
					FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['" + key + "']"},
				}})
			}
		}
	}
	if r.job.Spec.BackoffLimitPerIndex == nil {
		return
	}
	counted, ignored := 0, 0
	if last := r.held[i]; last != nil {
		counted, ignored = number(last, batchv1.JobIndexFailureCountAnnotation), number(last, batchv1.JobIndexIgnoredFailureCountAnnotation)
		if rule(r.job.Spec.PodFailurePolicy, last).counts() {
			counted++
		} else {
			ignored++
		}
	}
	pod.Annotations = put(pod.Annotations, batchv1.JobIndexFailureCountAnnotation, strconv.Itoa(counted))
	if ignored > 0 {
		pod.Annotations = put(pod.Annotations, batchv1.JobIndexIgnoredFailureCountAnnotation, strconv.Itoa(ignored))
	}
}

// longestPrefix is as much of a generated name as a server keeps.
const longestPrefix = 58

// generateName keeps the index, whatever becomes of a long name.
func generateName(job, end string) string {
	return job[:min(len(job), longestPrefix-len(end))] + end
}

func put(m map[string]string, key, value string) map[string]string {
	if m == nil {
		m = map[string]string{}
	}
	m[key] = value
	return m
}
