package job

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/ctrl"
)

// A pod that failed is replaced after 10 s, and twice as long each time that
// another fails before one succeeds.
const (
	firstBackoff = 10 * time.Second
	lastBackoff  = 10 * time.Minute
)

// A record is how pods failed lately. It is a plan's memo.
type record struct {
	failures int // since the last success
	last     time.Time
	counted  map[types.UID]bool // the pods in it, of those not yet counted in the status
}

// note is r after pods that are newly finished.
func (r record) note(succeeded, failed []*corev1.Pod) record {
	out := record{failures: r.failures, last: r.last, counted: map[types.UID]bool{}}
	var success time.Time
	for _, p := range succeeded {
		if out.counted[p.UID] = true; !r.counted[p.UID] && ended(p).After(success) {
			success = ended(p)
		}
	}
	if !success.IsZero() {
		out.failures, out.last = 0, time.Time{}
	}
	failed = slices.Clone(failed)
	slices.SortFunc(failed, func(a, b *corev1.Pod) int { return ended(a).Compare(ended(b)) })
	for _, p := range failed {
		if out.counted[p.UID] = true; !r.counted[p.UID] && ended(p).After(success) {
			out.failures++
			out.last = ended(p)
		}
	}
	return out
}

// wait is how long no pod is to be made after so many failures, the last of
// them then.
func wait(failures int, last, now time.Time) time.Duration {
	if failures == 0 {
		return 0
	}
	d := firstBackoff
	for range failures - 1 {
		if d *= 2; d >= lastBackoff {
			d = lastBackoff
			break
		}
	}
	return max(0, d-now.Sub(last))
}

// ended is when p ended: when its last container did, where they say; else
// when it was not ready any more, or was deleted; else it never began.
func ended(p *corev1.Pod) time.Time {
	if at := lastContainer(p); !at.IsZero() {
		return at
	}
	if c := ctrl.PodCondition(p, corev1.PodReady); c != nil && c.Status == corev1.ConditionFalse && !c.LastTransitionTime.IsZero() {
		return c.LastTransitionTime.Time
	}
	if p.DeletionTimestamp != nil {
		grace := int64(0)
		if g := p.DeletionGracePeriodSeconds; g != nil {
			grace = *g
		}
		return p.DeletionTimestamp.Add(-time.Duration(grace) * time.Second)
	}
	return p.CreationTimestamp.Time
}

// lastContainer is zero where a container has not ended, or does not say when.
func lastContainer(p *corev1.Pod) (last time.Time) {
	sidecar := map[string]bool{}
	for i := range p.Spec.InitContainers {
		sidecar[p.Spec.InitContainers[i].Name] = ctrl.Sidecar(&p.Spec.InitContainers[i])
	}
	statuses := slices.Clone(p.Status.ContainerStatuses)
	for _, s := range p.Status.InitContainerStatuses {
		if sidecar[s.Name] {
			statuses = append(statuses, s)
		}
	}
	for _, s := range statuses {
		if s.State.Terminated == nil || s.State.Terminated.FinishedAt.IsZero() {
			return time.Time{}
		}
		if at := s.State.Terminated.FinishedAt.Time; at.After(last) {
			last = at
		}
	}
	return last
}
