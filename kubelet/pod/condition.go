package pod

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// own are the conditions that the kubelet alone sets.
var own = []corev1.PodConditionType{
	corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady,
	corev1.PodScheduled, corev1.AllContainersRestarting, corev1.PodResizePending, corev1.PodResizeInProgress,
}

// conditions fills in the kubelet's own conditions and keeps those of others.
func (s State) conditions(st *corev1.PodStatus, end *End) {
	st.Conditions = slices.DeleteFunc(st.Conditions, func(c corev1.PodCondition) bool { return slices.Contains(own, c.Type) })
	if end != nil && end.Disrupted && terminal(st.Phase) {
		s.set(st, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonTerminationByKubelet, Message: end.Message})
	}
	network := corev1.PodCondition{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionFalse}
	if s.usable() {
		network.Status = corev1.ConditionTrue
	}
	s.set(st, network)
	s.set(st, s.initializedCondition(st))
	containers := s.readyCondition(st)
	ready := containers
	ready.Type = corev1.PodReady
	if ready.Status == corev1.ConditionTrue {
		s.gate(st, &ready)
	}
	s.set(st, ready)
	s.set(st, containers)
	s.set(st, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue})
	if slices.ContainsFunc(specs(s.Pod), resets) {
		s.set(st, s.restartingCondition(st))
	}
}

// set adds a condition, dated when its status last changed.
func (s State) set(st *corev1.PodStatus, c corev1.PodCondition) {
	c.ObservedGeneration = s.Pod.Generation
	c.LastTransitionTime = stamp(s.Now)
	for _, was := range s.Was.Conditions {
		if was.Type == c.Type && was.Status == c.Status {
			c.LastTransitionTime = was.LastTransitionTime
		}
	}
	for i := range st.Conditions {
		if st.Conditions[i].Type == c.Type {
			st.Conditions[i] = c
			return
		}
	}
	st.Conditions = append(st.Conditions, c)
}

func (s State) initializedCondition(st *corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}
	var incomplete []string
	anyMain := false
	for _, sp := range specs(s.Pod) {
		cs := find(*st, sp)
		switch sp.role {
		case initial:
			if !cs.Ready {
				incomplete = append(incomplete, sp.Name)
			}
		case sidecar:
			if !*cs.Started {
				incomplete = append(incomplete, sp.Name)
			}
		case main:
			anyMain = anyMain || *cs.Started || cs.State.Waiting == nil
		}
	}
	switch {
	case st.Phase == corev1.PodSucceeded:
		c.Reason = "PodCompleted"
	case len(incomplete) == 0, anyMain, held(s.Was, corev1.PodInitialized) && s.restartingAll():
	default:
		c.Status, c.Reason = corev1.ConditionFalse, "ContainersNotInitialized"
		c.Message = "containers with incomplete status: [" + strings.Join(incomplete, " ") + "]"
	}
	return c
}

func (s State) readyCondition(st *corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionTrue}
	var bad []string
	for _, sp := range specs(s.Pod) {
		if (sp.role == main || sp.role == sidecar) && !find(*st, sp).Ready {
			bad = append(bad, sp.Name)
		}
	}
	switch {
	case st.Phase == corev1.PodSucceeded:
		c.Status, c.Reason = corev1.ConditionFalse, "PodCompleted"
	case st.Phase == corev1.PodFailed:
		c.Status, c.Reason = corev1.ConditionFalse, "PodFailed"
	case len(bad) > 0:
		c.Status, c.Reason = corev1.ConditionFalse, "ContainersNotReady"
		c.Message = "containers with unready status: [" + strings.Join(bad, " ") + "]"
	}
	return c
}

// gate takes the readiness away while a readiness gate is not open.
func (s State) gate(st *corev1.PodStatus, ready *corev1.PodCondition) {
	var closed []string
	for _, g := range s.Pod.Spec.ReadinessGates {
		i := slices.IndexFunc(st.Conditions, func(c corev1.PodCondition) bool { return c.Type == g.ConditionType })
		if i < 0 {
			closed = append(closed, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", g.ConditionType))
		} else if now := st.Conditions[i].Status; now != corev1.ConditionTrue {
			closed = append(closed, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", g.ConditionType, now))
		}
	}
	if len(closed) > 0 {
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "ReadinessGatesNotReady", strings.Join(closed, ", ")
	}
}

func (s State) restartingCondition(st *corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.AllContainersRestarting, Status: corev1.ConditionFalse}
	switch {
	case st.Phase == corev1.PodSucceeded:
		c.Reason = "PodCompleted"
	case st.Phase == corev1.PodFailed:
		c.Reason = "PodFailed"
	case s.resetting():
		c.Status, c.Reason, c.Message = corev1.ConditionTrue, "RestartAllContainersStarted", "container exited with restart policy rule"
	}
	return c
}

// resets tells whether a container has a rule that restarts all of them.
func resets(c spec) bool {
	return slices.ContainsFunc(c.RestartPolicyRules, func(r corev1.ContainerRestartRule) bool {
		return r.Action == corev1.ContainerRestartRuleActionRestartAllContainers
	})
}

// resetting tells whether a container's end has all of them restarted.
func (s State) resetting() bool {
	return slices.ContainsFunc(specs(s.Pod), func(c spec) bool {
		run := s.here(c.Name)
		return run != nil && run.Phase == Exited && rule(c, run.ExitCode) == corev1.ContainerRestartRuleActionRestartAllContainers
	})
}

// restartingAll tells whether that was so when the status was last worked out.
func (s State) restartingAll() bool { return held(s.Was, corev1.AllContainersRestarting) }

// held tells whether a condition was true.
func held(st corev1.PodStatus, t corev1.PodConditionType) bool {
	return slices.ContainsFunc(st.Conditions, func(c corev1.PodCondition) bool { return c.Type == t && c.Status == corev1.ConditionTrue })
}
