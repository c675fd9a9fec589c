package daemonset

import (
	"cmp"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/ctrl"
)

// A node on which pods fail gets the next one after a second, then twice as
// long each time. It is trusted again after twice the longest wait.
const (
	firstWait = time.Second
	lastWait  = 15 * time.Minute
)

// failures is the memo of a set: the nodes on which pods of a generation failed.
type failures struct {
	generation int64
	on         map[string]failure
}

type failure struct {
	at   time.Time // when a failed pod was last deleted
	wait time.Duration
}

// wait is how long a failed pod on node has to stay where it is.
func (f failures) wait(node string, generation int64, now time.Time) time.Duration {
	had, ok := f.on[node]
	if !ok || f.generation != generation {
		return 0
	}
	return max(0, had.wait-now.Sub(had.at))
}

// note is f with one more failed pod on node.
func (f failures) note(node string, generation int64, now time.Time) failures {
	next := failures{generation, map[string]failure{}}
	if f.generation == generation && f.on != nil {
		next.on = maps.Clone(f.on)
		maps.DeleteFunc(next.on, func(_ string, had failure) bool { return now.Sub(had.at) > 2*lastWait })
	}
	wait := firstWait
	if had, ok := next.on[node]; ok {
		wait = min(2*had.wait, lastWait)
	}
	next.on[node] = failure{now, wait}
	return next
}

// manage finds the nodes that lack a pod, and the pods that should not be.
func (r *run) manage() {
	for _, n := range r.nodes {
		v, pods := r.fits[n.Name], r.on[n.Name]
		switch {
		case v.run && len(pods) == 0:
			r.add = append(r.add, n.Name)
		case v.stay:
			r.keep(n.Name, pods)
		default:
			for _, p := range pods {
				if p.DeletionTimestamp == nil {
					r.remove = append(r.remove, p)
				}
			}
		}
	}
	// Nobody else deletes a pod that waits for a node that is gone.
	for _, node := range slices.Sorted(maps.Keys(r.on)) {
		if _, there := r.fits[node]; there {
			continue
		}
		for _, p := range r.on[node] {
			if p.Spec.NodeName == "" && p.DeletionTimestamp == nil {
				r.remove = append(r.remove, p)
			}
		}
	}
}

// keep leaves one pod on a node, or two while one takes over from the other.
// Of several it is the oldest that is ready; upstream's is the oldest of all.
func (r *run) keep(node string, pods []*corev1.Pod) {
	pods = r.running(node, pods)
	unready := func(p *corev1.Pod) int {
		if ctrl.Ready(p) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(pods, func(a, b *corev1.Pod) int { return cmp.Compare(unready(a), unready(b)) })
	switch {
	case r.second == 0 && len(pods) > 1:
		r.remove = append(r.remove, pods[1:]...)
	case r.second == 0:
	case len(pods) == 0 && r.fits[node].run:
		r.add = append(r.add, node)
	case len(pods) > 1:
		r.pair(pods)
	}
}

// running are those of pods that will go on. The others are deleted, failed
// ones not too often.
func (r *run) running(node string, pods []*corev1.Pod) (left []*corev1.Pod) {
	for _, p := range pods {
		switch {
		case p.DeletionTimestamp != nil:
		case p.Status.Phase == corev1.PodFailed:
			if wait := r.failures.wait(node, r.set.Generation, r.now); wait > 0 {
				r.after = ctrl.Soonest(r.after, wait)
				continue
			}
			r.failures = r.failures.note(node, r.set.Generation, r.now)
			r.do = append(r.do, ctrl.Complain(r.set, "FailedDaemonPod: Found failed daemon pod %s/%s on node %s, will try to kill it", p.Namespace, p.Name, node))
			r.remove = append(r.remove, p)
		case p.Status.Phase == corev1.PodSucceeded:
			r.do = append(r.do, ctrl.Tell(r.set, "SucceededDaemonPod: Found succeeded daemon pod %s/%s on node %s, will try to delete it", p.Namespace, p.Name, node))
			r.remove = append(r.remove, p)
		default:
			left = append(left, p)
		}
	}
	return left
}

// pair keeps of pods on one node the first of the new template, and the first
// of another while that is ready and the new one is not available.
func (r *run) pair(pods []*corev1.Pod) {
	var fresh, old *corev1.Pod
	for _, p := range pods {
		switch {
		case p.Labels[hashKey] == r.hash && fresh == nil:
			fresh = p
		case p.Labels[hashKey] != r.hash && old == nil:
			old = p
		default:
			r.remove = append(r.remove, p)
		}
	}
	if fresh != nil && old != nil && (!ctrl.Ready(old) || r.available(fresh)) {
		r.remove = append(r.remove, old)
	}
}

func (r *run) available(p *corev1.Pod) bool {
	ok, _ := ctrl.Available(p, r.set.Spec.MinReadySeconds, r.now)
	return ok
}
