package ctrl

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/utils/dump"

	"github.com/knarr-dev/knarr/apis"
)

// Finished reports whether no container of p will run again.
func Finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// Active reports whether p runs, or will: it is neither finished nor being deleted.
func Active(p *corev1.Pod) bool { return !Finished(p) && p.DeletionTimestamp == nil }

// Terminating reports whether p is being deleted and has not finished yet.
func Terminating(p *corev1.Pod) bool { return !Finished(p) && p.DeletionTimestamp != nil }

// PodCondition returns the condition of p of that type, nil where it has none.
func PodCondition(p *corev1.Pod, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == t {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

// Ready reports whether p is ready.
func Ready(p *corev1.Pod) bool {
	c := PodCondition(p, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// ReadySince is when p became ready, the zero time where it is not.
func ReadySince(p *corev1.Pod) time.Time {
	if c := PodCondition(p, corev1.PodReady); c != nil && c.Status == corev1.ConditionTrue {
		return c.LastTransitionTime.Time
	}
	return time.Time{}
}

// Available reports whether p has been ready for as long as is asked for,
// and where it is ready but not yet for so long, in how long it will.
func Available(p *corev1.Pod, minReadySeconds int32, now time.Time) (bool, time.Duration) {
	if !Ready(p) {
		return false, 0
	}
	since, patience := ReadySince(p), time.Duration(minReadySeconds)*time.Second
	switch {
	case patience == 0:
		return true, 0
	case since.IsZero():
		return false, 0
	}
	wait := patience - now.Sub(since)
	return wait <= 0, max(0, wait)
}

// PodFrom is a pod as template says, controlled by owner, which is of that
// kind. The server makes up the end of its name.
func PodFrom(template *corev1.PodTemplateSpec, owner apis.Object, kind schema.GroupVersionKind) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       owner.GetNamespace(),
			GenerateName:    owner.GetName() + "-",
			Labels:          maps.Clone(template.Labels),
			Annotations:     maps.Clone(template.Annotations),
			Finalizers:      slices.Clone(template.Finalizers),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(owner, kind)},
		},
		Spec: *template.Spec.DeepCopy(),
	}
}

// TemplateHash tells templates apart in names and labels. A collision count
// makes another hash of the same template. It is upstream's, so that either
// can go on where the other stopped.
func TemplateHash(t *corev1.PodTemplateSpec, collisions *int32) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%v", dump.ForHash(*t))
	if collisions != nil {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(uint32(*collisions))))
	}
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
}

// Sidecar reports whether an init container goes on running beside the others.
func Sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// Disrupt is the patch of p's status that tells why somebody other than its
// owner is about to delete it. A phase that is not empty becomes p's.
func Disrupt(p *corev1.Pod, phase corev1.PodPhase, reason, message string, now time.Time) Action {
	status := corev1.PodStatus{Phase: phase, ObservedGeneration: p.Generation}
	if reason != "" {
		status.Conditions = []corev1.PodCondition{{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason, Message: message,
			ObservedGeneration: p.Generation, LastTransitionTime: metav1.NewTime(now),
		}}
	}
	return PatchStatus(p, status)
}

// PatchStatus is the strategic merge patch of the status of p, and of no
// other pod of its name, that sets what status says.
func PatchStatus(p *corev1.Pod, status corev1.PodStatus) Action {
	patch := map[string]any{"metadata": map[string]any{"uid": p.UID}, "status": status}
	return Action{Verb: Patch, Obj: p, Sub: "status", Patch: JSON(patch)}
}
