package replicaset

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/ctrl"
)

// choose picks the n pods that are the least loss, and returns the rest too.
func choose(in input, n int) (victims, rest []*corev1.Pod) {
	pods := slices.Clone(in.pods)
	if n < len(pods) {
		slices.SortFunc(pods, func(a, b *corev1.Pod) int { return in.worse(a, b) })
	}
	return pods[:n], pods[n:]
}

// worse orders pods by how little is lost with them. Times count by their
// power of two only, so that not all that is new goes, and chance decides
// among equals: the UID.
func (in input) worse(a, b *corev1.Pod) int {
	return cmp.Or(
		compareBool(a.Spec.NodeName != "", b.Spec.NodeName != ""),
		cmp.Compare(phases[a.Status.Phase], phases[b.Status.Phase]),
		compareBool(ctrl.Ready(a), ctrl.Ready(b)),
		cmp.Compare(cost(a), cost(b)),
		cmp.Compare(in.beside[b.Spec.NodeName], in.beside[a.Spec.NodeName]),
		in.newer(ctrl.ReadySince(a), ctrl.ReadySince(b), a, b),
		compareRestarts(b, a),
		in.newer(a.CreationTimestamp.Time, b.CreationTimestamp.Time, a, b),
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
func (in input) newer(a, b time.Time, pa, pb *corev1.Pod) int {
	switch {
	case a.Equal(b):
		return 0
	case a.IsZero():
		return -1
	case b.IsZero():
		return 1
	}
	return cmp.Or(cmp.Compare(power(in.now.Sub(a)), power(in.now.Sub(b))), cmp.Compare(pa.UID, pb.UID))
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
