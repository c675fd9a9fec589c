package job

import (
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-dev/knarr/ctrl"
)

// Orphans frees pods of the finalizer that waits to be counted by a Job that
// will not count them: because it is gone, or has finished.
var Orphans = ctrl.Controller[*corev1.Pod, orphan]{
	Name:    "job-controller/orphans",
	Account: "job-controller",
	Workers: 2,
	Heeds:   tracked,
	Reads: []ctrl.Read{
		ctrl.Watch[*corev1.Pod](nil, ctrl.ByOwner),
		ctrl.Watch(wakeForJob),
	},
	Writes: []ctrl.Write{ctrl.May(&corev1.Pod{}, ctrl.Patch)},
	Gather: gatherOrphan,
	Decide: decideOrphan,
}.Erase()

// wakeForJob wakes the pods of a job that is gone, or has just finished.
func wakeForJob(w ctrl.World, old, j *batchv1.Job) (keys []ctrl.Key) {
	if old == nil || j != nil && (!finished(j) || finished(old)) {
		return nil
	}
	for _, p := range ctrl.Find[*corev1.Pod](w, ctrl.ByOwner, string(old.UID)) {
		if tracked(p) {
			keys = append(keys, ctrl.KeyOf(p))
		}
	}
	return keys
}

type orphan struct {
	pod   *corev1.Pod
	owner *batchv1.Job // nil where it is gone
	heirs bool         // nobody controls the pod, and a job selects it
}

func gatherOrphan(w ctrl.World, p *corev1.Pod) orphan {
	in := orphan{pod: p}
	ref := metav1.GetControllerOfNoCopy(p)
	if ref == nil {
		in.heirs = len(ctrl.Selecting(w, p, func(j *batchv1.Job) labels.Selector {
			if finished(j) {
				return labels.Nothing()
			}
			return ctrl.Selector(j.Spec.Selector)
		})) > 0
		return in
	}
	if j := ctrl.Get[*batchv1.Job](w, p.Namespace, ref.Name); j != nil && j.UID == ref.UID {
		in.owner = j
	}
	return in
}

func decideOrphan(in orphan) ctrl.Plan {
	ref := metav1.GetControllerOfNoCopy(in.pod)
	switch {
	case !tracked(in.pod), in.heirs:
	case ref != nil && (ref.Kind != kind.Kind || ref.APIVersion != batchv1.SchemeGroupVersion.String()):
	case in.owner != nil && (others(in.owner) || !finished(in.owner)):
	default:
		return ctrl.Plan{Do: []ctrl.Action{ctrl.DropFinalizer(in.pod, tracking)}}
	}
	return ctrl.Plan{}
}
