package ctrl

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A Ranking orders pods by how little is lost with them. Times count by their
// power of two only, so that not all that is new goes, and chance decides
// among equals: the UID.
type Ranking struct {
	Beside map[string]int // how many pods of the same kind each node has; one of two is less of a loss
	Now    time.Time
}

// Worst returns the n pods of which the least is lost, and the rest.
func (r Ranking) Worst(pods []*corev1.Pod, n int) (worst, rest []*corev1.Pod) {
	pods = slices.Clone(pods)
	if n < len(pods) {
		slices.SortFunc(pods, r.compare)
	}
	return pods[:n], pods[n:]
}

func (r Ranking) compare(a, b *corev1.Pod) int {
	return cmp.Or(
		compareBool(a.Spec.NodeName != "", b.Spec.NodeName != ""),
		cmp.Compare(phases[a.Status.Phase], phases[b.Status.Phase]),
		compareBool(Ready(a), Ready(b)),
		cmp.Compare(cost(a), cost(b)),
		cmp.Compare(r.Beside[b.Spec.NodeName], r.Beside[a.Spec.NodeName]),
		r.newer(ReadySince(a), ReadySince(b), a, b),
		compareRestarts(b, a),
		r.newer(a.CreationTimestamp.Time, b.CreationTimestamp.Time, a, b),
		cmp.Compare(a.UID, b.UID),
	)
}

var phases = map[corev1.PodPhase]int{corev1.PodPending: 0, corev1.PodUnknown: 1, corev1.PodRunning: 2}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// cost is what the user says that the loss of p costs.
func cost(p *corev1.Pod) int64 {
	n, err := strconv.ParseInt(p.Annotations[corev1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0
	}
	return n
}

// newer puts the later time first, and a time unknown before all.
func (r Ranking) newer(a, b time.Time, pa, pb *corev1.Pod) int {
	switch {
	case a.Equal(b):
		return 0
	case a.IsZero():
		return -1
	case b.IsZero():
		return 1
	}
	return cmp.Or(cmp.Compare(power(r.Now.Sub(a)), power(r.Now.Sub(b))), cmp.Compare(pa.UID, pb.UID))
}

func power(d time.Duration) int {
	if d <= 0 {
		return -1
	}
	return int(math.Log2(float64(d)))
}

func compareRestarts(a, b *corev1.Pod) int {
	mainA, sideA := restarts(a)
	mainB, sideB := restarts(b)
	return cmp.Or(cmp.Compare(mainA, mainB), cmp.Compare(sideA, sideB))
}

// restarts is the most that a container of p restarted, and a sidecar.
func restarts(p *corev1.Pod) (containers, sidecars int32) {
	for _, c := range p.Status.ContainerStatuses {
		containers = max(containers, c.RestartCount)
	}
	for _, s := range p.Status.InitContainerStatuses {
		if slices.ContainsFunc(p.Spec.InitContainers, func(c corev1.Container) bool {
			return c.Name == s.Name && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		}) {
			sidecars = max(sidecars, s.RestartCount)
		}
	}
	return containers, sidecars
}
