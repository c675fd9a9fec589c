package core

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var podColumns = []apis.Column[*corev1.Pod]{
	{Name: "Ready", Cell: func(p *corev1.Pod, _ time.Time) any {
		s := summarize(p)
		return fmt.Sprintf("%d/%d", s.ready, s.total)
	}},
	{Name: "Status", Cell: func(p *corev1.Pod, _ time.Time) any { return summarize(p).status }},
	{Name: "Restarts", Cell: func(p *corev1.Pod, now time.Time) any {
		s := summarize(p)
		if s.restarts == 0 || s.restarted.IsZero() {
			return strconv.Itoa(s.restarts)
		}
		return fmt.Sprintf("%d (%s ago)", s.restarts, apis.Age(s.restarted, now))
	}},
	{Name: "IP", Wide: true, Cell: func(p *corev1.Pod, _ time.Time) any { return meta.Or(podIP(p), "<none>") }},
	{Name: "Node", Wide: true, Cell: func(p *corev1.Pod, _ time.Time) any { return meta.Or(p.Spec.NodeName, "<none>") }},
	{Name: "Nominated Node", Wide: true, Cell: func(p *corev1.Pod, _ time.Time) any {
		return meta.Or(p.Status.NominatedNodeName, "<none>")
	}},
	{Name: "Readiness Gates", Wide: true, Cell: func(p *corev1.Pod, _ time.Time) any { return readinessGates(p) }},
}

// A podSummary is what the table says of a pod's containers.
type podSummary struct {
	ready, total, restarts int
	restarted              metav1.Time
	status                 string
}

// summarize finds the one word that says most about p: that of the init
// container it waits for, else that of its first container with a tale to
// tell, else its phase; and over all that, that it is going.
func summarize(p *corev1.Pod) podSummary {
	s := podSummary{status: meta.Or(p.Status.Reason, string(p.Status.Phase)), total: len(p.Spec.Containers)}
	if c := podCondition(p, corev1.PodScheduled); c.Reason == corev1.PodReasonSchedulingGated {
		s.status = c.Reason
	}
	if waits := s.addInit(p); !waits || podCondition(p, corev1.PodInitialized).Status == corev1.ConditionTrue {
		s.addMain(p)
	}
	if p.DeletionTimestamp != nil {
		switch {
		case p.Status.Reason == "NodeLost":
			s.status = "Unknown"
		case p.Status.Phase != corev1.PodFailed && p.Status.Phase != corev1.PodSucceeded:
			s.status = "Terminating"
		}
	}
	return s
}

// addInit adds the init containers up to the first that is not done, and
// tells whether there is one. Where there is none only the sidecars count.
func (s *podSummary) addInit(p *corev1.Pod) (waits bool) {
	sidecars := map[string]bool{}
	for _, c := range p.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			sidecars[c.Name] = true
			s.total++
		}
	}
	all, beside := podSummary{}, podSummary{}
	for i, c := range p.Status.InitContainerStatuses {
		all.countRestarts(c)
		if sidecars[c.Name] {
			beside.countRestarts(c)
		}
		switch ended := c.State.Terminated; {
		case ended != nil && ended.ExitCode == 0:
			continue
		case sidecars[c.Name] && c.Started != nil && *c.Started:
			if c.Ready {
				s.ready++
			}
			continue
		case ended != nil:
			s.status = "Init:" + endedBy(ended)
		case c.State.Waiting != nil && c.State.Waiting.Reason != "" && c.State.Waiting.Reason != "PodInitializing":
			s.status = "Init:" + c.State.Waiting.Reason
		default:
			s.status = fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers))
		}
		waits = true
		break
	}
	counts := beside
	if waits && podCondition(p, corev1.PodInitialized).Status != corev1.ConditionTrue {
		counts = all
	}
	s.restarts, s.restarted = counts.restarts, counts.restarted
	return waits
}

// addMain adds the main containers, the first of them last.
func (s *podSummary) addMain(p *corev1.Pod) {
	running, failure := false, ""
	for _, c := range slices.Backward(p.Status.ContainerStatuses) {
		s.countRestarts(c)
		switch ended := c.State.Terminated; {
		case c.State.Waiting != nil && c.State.Waiting.Reason != "":
			s.status = c.State.Waiting.Reason
		case ended != nil:
			if s.status = endedBy(ended); ended.ExitCode != 0 {
				failure = s.status
			}
		case c.Ready && c.State.Running != nil:
			running = true
			s.ready++
		}
	}
	if s.status != "Completed" {
		return
	}
	switch {
	case running && podCondition(p, corev1.PodReady).Status == corev1.ConditionTrue:
		s.status = "Running"
	case failure != "":
		s.status = failure
	case running:
		s.status = "NotReady"
	}
}

func (s *podSummary) countRestarts(c corev1.ContainerStatus) {
	s.restarts += int(c.RestartCount)
	if ended := c.LastTerminationState.Terminated; ended != nil && s.restarted.Before(&ended.FinishedAt) {
		s.restarted = ended.FinishedAt
	}
}

func endedBy(t *corev1.ContainerStateTerminated) string {
	switch {
	case t.Reason != "":
		return t.Reason
	case t.Signal != 0:
		return fmt.Sprintf("Signal:%d", t.Signal)
	}
	return fmt.Sprintf("ExitCode:%d", t.ExitCode)
}

func readinessGates(p *corev1.Pod) string {
	if len(p.Spec.ReadinessGates) == 0 {
		return "<none>"
	}
	open := 0
	for _, gate := range p.Spec.ReadinessGates {
		if podCondition(p, gate.ConditionType).Status == corev1.ConditionTrue {
			open++
		}
	}
	return fmt.Sprintf("%d/%d", open, len(p.Spec.ReadinessGates))
}

// podCondition is the pod's condition of that type, zero if it has none.
func podCondition(p *corev1.Pod, kind corev1.PodConditionType) corev1.PodCondition {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return corev1.PodCondition{}
}
