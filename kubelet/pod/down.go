package pod

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// minGrace is what every container gets between the two signals.
const minGrace = 2 * time.Second

// down works towards nothing left.
func (s State) down(p *Plan) {
	left := false
	for i := range s.Containers {
		c := &s.Containers[i]
		if !c.alive() {
			continue
		}
		left = true
		s.kill(p, c, "", s.grace(), s.turn(c))
	}
	if left || s.busy(lane) || s.busy("") {
		return
	}
	for _, box := range s.Sandboxes {
		if !box.Stopped {
			s.add(p, Step{Op: StopSandbox, ID: box.ID})
			return
		}
	}
	switch {
	case !s.Clean:
		s.add(p, Step{Op: Cleanup})
	case !s.Gone && s.Pod.DeletionTimestamp != nil && !s.Deleted:
		if s.Reported {
			s.add(p, Step{Op: Delete})
		}
	case !s.Gone: // it rests here with its logs until somebody deletes it
	case len(s.Sandboxes) > 0:
		s.add(p, Step{Op: RemoveSandbox, ID: s.Sandboxes[0].ID})
	case len(s.Containers) > 0:
		c := s.Containers[0]
		s.add(p, Step{Op: Remove, ID: c.ID, Container: c.Name})
	default:
		s.add(p, Step{Op: Forget})
	}
}

// over tells whether all is down that will be: the status is final.
func (s State) over() bool {
	if !s.ending() || s.running() {
		return false
	}
	for _, box := range s.Sandboxes {
		if !box.Stopped {
			return false
		}
	}
	return s.Clean
}

// kill ends a running container: first its pre-stop hook, then, when it is its
// turn, the signal. What goes on already is done anew only where there is less
// time for it now.
func (s State) kill(p *Plan, c *Container, why Why, grace time.Duration, turn bool) {
	k, begun := s.Killing[c.ID]
	since := k.Since
	if !begun {
		since = s.Now
	}
	if !s.Since.IsZero() && (!begun || since.Before(s.Since)) {
		since = s.Since
	}
	left := since.Add(grace).Sub(s.Now)
	step := Step{Op: Stop, Container: c.Name, ID: c.ID, Why: why, Grace: max(left, minGrace)}
	switch {
	case left > 0 && !k.Told && s.hasPreStop(c.Name):
		step.Op, step.Grace = PreStop, left
	case left > 0 && !turn:
		p.soon(left)
		return
	}
	step.Until = s.Now.Add(step.Grace)
	switch doing, ok := s.Doing[c.ID]; {
	case !ok:
		s.add(p, step)
	case step.Until.Before(doing.Until):
		p.Steps = append(p.Steps, step)
	}
}

func (s State) hasPreStop(name string) bool {
	for _, c := range specs(s.Pod) {
		if c.Name == name {
			return c.Lifecycle != nil && c.Lifecycle.PreStop != nil
		}
	}
	return false
}

// turn tells whether a container may be sent the signal: sidecars wait for the
// containers that they serve, and end in the reverse of their order.
func (s State) turn(c *Container) bool {
	list := specs(s.Pod)
	at := slices.IndexFunc(list, func(sp spec) bool { return sp.Name == c.Name })
	if at < 0 || list[at].role != sidecar {
		return true
	}
	for i, other := range list {
		if other.role == ephemeral || other.role == sidecar && i <= at {
			continue
		}
		if run := s.newest(other.Name); run != nil && run.alive() {
			return false
		}
	}
	return true
}

// grace is how long the containers of an ending pod have.
func (s State) grace() time.Duration {
	switch end := s.end(); {
	case s.Pod.DeletionGracePeriodSeconds != nil:
		return seconds(*s.Pod.DeletionGracePeriodSeconds)
	case end != nil && end.Grace != nil:
		return *end.Grace
	}
	return s.ownGrace()
}

// ownGrace is the grace period that the pod's specification asks for.
func (s State) ownGrace() time.Duration {
	if s.Pod.Spec.TerminationGracePeriodSeconds == nil {
		return minGrace
	}
	return seconds(*s.Pod.Spec.TerminationGracePeriodSeconds)
}

// probeGrace is the grace period of a container that a probe has condemned.
func (s State) probeGrace(c spec, why Why) time.Duration {
	var probe *corev1.Probe
	switch why {
	case Liveness:
		probe = c.LivenessProbe
	case Startup:
		probe = c.StartupProbe
	}
	if probe != nil && probe.TerminationGracePeriodSeconds != nil {
		return seconds(*probe.TerminationGracePeriodSeconds)
	}
	return s.ownGrace()
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }
