package pod

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	restartingAll = "RestartingAllContainers"
	statusUnknown = "ContainerStatusUnknown"
	lostCode      = 137 // as if killed
	// maxMessages is for the termination messages of all containers together.
	maxMessages = 12 << 10
)

// container is the status of one container.
func (s State) container(c spec) corev1.ContainerStatus {
	was := find(s.Was, c)
	cs := corev1.ContainerStatus{
		Name: c.Name, Image: c.Image,
		State:        corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: s.waiting()}},
		VolumeMounts: mounts(c),
		Started:      new(false),
	}
	if was != nil {
		cs.RestartCount, cs.LastTerminationState = was.RestartCount, was.LastTerminationState
	}
	run := s.shown(c.Name)
	if run != nil {
		s.observed(&cs, c, run, was)
	} else if was != nil {
		s.lost(&cs, c, was)
	}
	s.held(&cs, c, run)
	if s.over() && cs.State.Terminated == nil && s.mustHaveRun(c) {
		cs.State = corev1.ContainerState{Terminated: gone("The container could not be located when the pod was terminated")}
	}
	if s.started(c, run) {
		*cs.Started = true
		cs.Ready = c.role != ephemeral && c.role != initial && s.ready(c, run, was)
	} else if c.role == initial {
		*cs.Started = cs.State.Running != nil
		cs.Ready = cs.State.Terminated != nil && cs.State.Terminated.ExitCode == 0
	}
	if c.role == ephemeral {
		cs.Started = nil
	}
	return cs
}

// shown is the newest container of a name whose start is over: until then the
// status speaks of the one before.
func (s State) shown(name string) *Container {
	for i := range s.Containers {
		if c := &s.Containers[i]; c.Name == name && (c.Phase == Exited || !s.starting(name)) {
			return c
		}
	}
	return nil
}

// waiting is the reason for which a container waits that has none of its own.
func (s State) waiting() string {
	if len(s.Pod.Spec.InitContainers) > 0 {
		return "PodInitializing"
	}
	return "ContainerCreating"
}

// observed takes over what the runtime has of a container.
func (s State) observed(cs *corev1.ContainerStatus, c spec, run *Container, was *corev1.ContainerStatus) {
	cs.Image, cs.ImageID, cs.ContainerID = run.Image, run.ImageID, s.id(run)
	cs.RestartCount = max(cs.RestartCount, run.Attempt)
	cs.User = run.User
	if c.role != ephemeral {
		cs.AllocatedResources = c.Resources.Requests
		cs.Resources = resources(c.Resources, run)
	}
	if was != nil && was.ContainerID != cs.ContainerID && was.State.Terminated != nil {
		cs.LastTerminationState = corev1.ContainerState{Terminated: was.State.Terminated}
	}
	for i := range s.Containers {
		if old := &s.Containers[i]; old.Name == c.Name && old.Attempt < run.Attempt {
			if old.Phase == Exited {
				cs.LastTerminationState = corev1.ContainerState{Terminated: s.terminated(old)}
			}
			break
		}
	}
	switch run.Phase {
	case Created, Unknown: // it waits
	case Exited:
		cs.State = corev1.ContainerState{Terminated: s.terminated(run)}
	case Running:
		cs.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: stamp(run.Started)}}
	}
}

func (s State) terminated(c *Container) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode: c.ExitCode, Signal: c.Signal, Reason: c.Reason, Message: c.Message,
		StartedAt: stamp(c.Started), FinishedAt: stamp(c.Finished), ContainerID: s.id(c),
	}
	if limit := maxMessages / max(1, len(specs(s.Pod))); len(t.Message) > limit {
		t.Message = t.Message[:limit]
	}
	return t
}

// lost is the status of a container that the runtime does not have but once
// had: it must not look as if it had never run.
func (s State) lost(cs *corev1.ContainerStatus, c spec, was *corev1.ContainerStatus) {
	switch {
	case s.restartingAll() && was.State.Waiting == nil:
		why := "The container is removed because RestartAllContainers in place"
		cs.State.Waiting = &corev1.ContainerStateWaiting{Reason: restartingAll, Message: why}
		cs.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{Reason: restartingAll, Message: why, ExitCode: lostCode}
		cs.RestartCount++
	case was.State.Terminated != nil:
		*cs = *was.DeepCopy()
		cs.Ready, cs.Started = false, new(false)
	case c.role == initial && s.initialized():
		cs.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			Reason:  "Completed",
			Message: "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally",
		}}
	case was.State.Running != nil:
		cs.LastTerminationState.Terminated = gone("The container could not be located when the pod was deleted.  The container used to be Running")
		if s.Pod.DeletionTimestamp == nil {
			cs.RestartCount++
		}
	}
}

func gone(message string) *corev1.ContainerStateTerminated {
	return &corev1.ContainerStateTerminated{Reason: statusUnknown, Message: message, ExitCode: lostCode}
}

// held says why a container that is to be started is not: its back-off, or
// what went wrong the last time.
func (s State) held(cs *corev1.ContainerStatus, c spec, run *Container) {
	if cs.State.Running != nil || s.ending() || run != nil && run.Phase == Exited && !restarts(s.Pod, c, run.ExitCode) {
		return
	}
	w := &corev1.ContainerStateWaiting{}
	trouble, troubled := s.Trouble[c.Name]
	switch {
	case troubled:
		w.Reason, w.Message = trouble.Reason, trouble.Message
	case run != nil && run.Phase == Exited && !s.starting(c.Name):
		left, _ := s.pause(c, run)
		if left <= 0 {
			return
		}
		w.Reason = "CrashLoopBackOff"
		w.Message = fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", s.Backoff[c.Name].Delay, c.Name, Name(s.Pod))
	default:
		return
	}
	if cs.State.Terminated != nil {
		cs.LastTerminationState = cs.State
	}
	cs.State = corev1.ContainerState{Waiting: w}
}

// Name is a pod's name as messages have it.
func Name(p *corev1.Pod) string { return fmt.Sprintf("%s_%s(%s)", p.Name, p.Namespace, p.UID) }

// mustHaveRun tells whether a container of a pod that is over counts as lost
// where its end is unknown: a main one unless init containers kept it from
// starting, and of those the ones that something shows to have started.
func (s State) mustHaveRun(c spec) bool {
	switch c.role {
	case ephemeral:
		return false
	case main:
		return len(s.Pod.Spec.InitContainers) == 0 || s.everInitialized()
	}
	seen := false
	for _, other := range specs(s.Pod) {
		if other.Name == c.Name {
			seen = true
		}
		if seen && (other.role == initial || other.role == sidecar) {
			was := find(s.Was, other)
			if s.newest(other.Name) != nil || was != nil && (was.State.Running != nil || was.State.Terminated != nil || was.LastTerminationState.Terminated != nil) {
				return true
			}
		}
	}
	return s.everInitialized()
}

func (s State) everInitialized() bool {
	for _, c := range s.Was.ContainerStatuses {
		if c.LastTerminationState.Terminated != nil || c.State.Waiting == nil {
			return true
		}
	}
	return false
}

// ready tells whether a running container that got past its start is ready.
func (s State) ready(c spec, run *Container, was *corev1.ContainerStatus) bool {
	if c.ReadinessProbe == nil {
		return true
	}
	if r := s.Probes[run.ID].Readiness; r != None {
		return r == Good
	}
	// A kubelet that starts does not make a ready pod unready.
	return was != nil && was.ContainerID == s.id(run) && was.Ready
}

func mounts(c spec) (list []corev1.VolumeMountStatus) {
	for _, m := range c.VolumeMounts {
		st := corev1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			mode := corev1.RecursiveReadOnlyDisabled
			if m.RecursiveReadOnly != nil && *m.RecursiveReadOnly != corev1.RecursiveReadOnlyDisabled {
				mode = corev1.RecursiveReadOnlyEnabled
			}
			st.RecursiveReadOnly = &mode
		}
		list = append(list, st)
	}
	return list
}

// stamp is a time as the API keeps it, in whole seconds.
func stamp(t time.Time) metav1.Time {
	if t.IsZero() {
		return metav1.Time{}
	}
	return metav1.Time{Time: t.Truncate(time.Second)}
}
