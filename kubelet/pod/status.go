package pod

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Status is the pod's status as the API is to have it.
func Status(s State) corev1.PodStatus {
	st := *s.Pod.Status.DeepCopy()
	if terminal(s.Was.Phase) && !s.active() {
		return s.last(st)
	}
	st.ObservedGeneration = max(s.Pod.Generation, s.Was.ObservedGeneration)
	st.QOSClass, st.Reason, st.Message = s.Was.QOSClass, s.Was.Reason, s.Was.Message
	if st.StartTime = s.Was.StartTime.DeepCopy(); st.StartTime.IsZero() {
		st.StartTime = &metav1.Time{Time: stamp(s.Now).Time}
	}
	end := s.end()
	if end != nil && end.Refused {
		st.Phase, st.Reason, st.Message = corev1.PodFailed, end.Reason, end.Message
		return st
	}

	s.addresses(&st)
	st.InitContainerStatuses, st.ContainerStatuses, st.EphemeralContainerStatuses = nil, nil, nil
	for _, c := range specs(s.Pod) {
		list := statuses(&st, c)
		*list = append(*list, s.container(c))
	}
	s.phase(&st, end)
	s.conditions(&st, end)
	return st
}

// last is the status of a pod that is over: nothing of it changes any more but
// what others say.
func (s State) last(st corev1.PodStatus) corev1.PodStatus {
	last := *s.Was.DeepCopy()
	last.ObservedGeneration = max(s.Pod.Generation, last.ObservedGeneration)
	last.ResourceClaimStatuses, last.ExtendedResourceClaimStatus = st.ResourceClaimStatuses, st.ExtendedResourceClaimStatus
	theirs := slices.DeleteFunc(st.Conditions, func(c corev1.PodCondition) bool { return slices.Contains(own, c.Type) })
	mine := slices.DeleteFunc(last.Conditions, func(c corev1.PodCondition) bool {
		known := slices.ContainsFunc(theirs, func(o corev1.PodCondition) bool { return o.Type == c.Type })
		return known || !slices.Contains(own, c.Type) && c.Type != corev1.DisruptionTarget
	})
	last.Conditions = append(theirs, mine...)
	return last
}

// statuses is the list that a container's status stands in.
func statuses(st *corev1.PodStatus, c spec) *[]corev1.ContainerStatus {
	switch c.role {
	case initial, sidecar:
		return &st.InitContainerStatuses
	case ephemeral:
		return &st.EphemeralContainerStatuses
	}
	return &st.ContainerStatuses
}

// find is a container's status; nil where there is none.
func find(st corev1.PodStatus, c spec) *corev1.ContainerStatus {
	list := *statuses(&st, c)
	i := slices.IndexFunc(list, func(cs corev1.ContainerStatus) bool { return cs.Name == c.Name })
	if i < 0 {
		return nil
	}
	return &list[i]
}

// addresses fills in where the pod can be reached. What it had it keeps when
// it ends, though the network is gone by then.
func (s State) addresses(st *corev1.PodStatus) {
	st.HostIP, st.HostIPs = s.Was.HostIP, s.Was.HostIPs
	if len(s.Host.IPs) > 0 {
		st.HostIP, st.HostIPs = s.Host.IPs[0], nil
		for _, ip := range s.Host.IPs {
			st.HostIPs = append(st.HostIPs, corev1.HostIP{IP: ip})
		}
	}
	var ips []string
	switch {
	case s.Pod.Spec.HostNetwork:
		ips = s.Host.IPs
	case len(s.Sandboxes) > 0 && s.Sandboxes[0].Ready:
		ips = s.Sandboxes[0].IPs
	}
	if len(ips) == 0 && (s.ending() || s.Pod.Spec.HostNetwork) {
		st.PodIP, st.PodIPs = s.Was.PodIP, s.Was.PodIPs
		return
	}
	st.PodIP, st.PodIPs = "", nil
	for _, ip := range ips {
		st.PodIPs = append(st.PodIPs, corev1.PodIP{IP: ip})
	}
	if len(ips) > 0 {
		st.PodIP = ips[0]
	}
}

// phase sums up the containers. A phase from which there is no way back waits
// until nothing runs any more.
func (s State) phase(st *corev1.PodStatus, end *End) {
	var phase corev1.PodPhase
	switch {
	case terminal(s.Was.Phase):
		st.Phase = s.Was.Phase // there is no way back, though something runs again
		return
	case end != nil:
		phase = corev1.PodFailed
	default:
		phase = s.tally(st)
	}
	if s.over() && !terminal(phase) {
		phase = corev1.PodFailed
	}
	if terminal(phase) && s.active() {
		phase = s.Was.Phase
		if phase == "" {
			phase = corev1.PodPending
		}
		st.Phase = phase
		return
	}
	if st.Phase = phase; end != nil && phase == corev1.PodFailed {
		st.Reason, st.Message = end.Reason, end.Message
	}
}

// active tells whether something of the pod may still run.
func (s State) active() bool {
	return s.running() || slices.ContainsFunc(s.Sandboxes, func(box Sandbox) bool { return box.Ready && !box.Stopped })
}

// tally is the phase that follows from the containers alone.
func (s State) tally(st *corev1.PodStatus) corev1.PodPhase {
	var waiting, running, stopped, final, succeeded int
	for _, c := range specs(s.Pod) {
		if c.role == ephemeral {
			continue
		}
		cs := find(*st, c)
		code, ended := ending(cs)
		lasting := ended && !s.comesBack(c, cs, code)
		switch {
		case c.role == initial && lasting && code != 0:
			return corev1.PodFailed
		case c.role == initial && ended: // done, or about to be done again
		case c.role == initial:
			waiting++
		case c.role == sidecar && cs.State.Running != nil:
			running++
			if !*cs.Started && !s.initialized() {
				waiting++
			}
		case c.role == sidecar && ended: // as upstream: has no say
		case cs.State.Running != nil:
			running++
		case ended:
			stopped++
			if lasting {
				final++
			}
			if code == 0 {
				succeeded++
			}
		default:
			waiting++
		}
	}
	switch {
	case waiting > 0:
		return corev1.PodPending
	case running > 0, stopped == 0:
		return corev1.PodRunning
	case stopped > final && !s.over():
		return corev1.PodRunning
	case stopped == succeeded:
		return corev1.PodSucceeded
	}
	return corev1.PodFailed
}

// ending is how a container's latest run ended, where none goes on.
func ending(cs *corev1.ContainerStatus) (code int32, ended bool) {
	switch {
	case cs.State.Terminated != nil:
		return cs.State.Terminated.ExitCode, true
	case cs.State.Waiting != nil && cs.LastTerminationState.Terminated != nil:
		return cs.LastTerminationState.Terminated.ExitCode, true
	}
	return 0, false
}

// comesBack tells whether a container that ended is to run again.
func (s State) comesBack(c spec, cs *corev1.ContainerStatus, code int32) bool {
	for _, t := range []*corev1.ContainerStateTerminated{cs.State.Terminated, cs.LastTerminationState.Terminated} {
		if t != nil {
			return t.Reason == restartingAll || restarts(s.Pod, c, code)
		}
	}
	return false
}
