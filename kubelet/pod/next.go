package pod

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// An Op is something that can be done for a pod.
type Op string

// The operations. Those before Start concern the whole pod.
const (
	Prepare       Op = "prepare"
	CreateSandbox Op = "create sandbox"
	StopSandbox   Op = "stop sandbox"
	RemoveSandbox Op = "remove sandbox"
	Cleanup       Op = "clean up"
	Delete        Op = "delete from the API"
	Forget        Op = "forget"
	Start         Op = "start"
	PreStop       Op = "pre-stop"
	Stop          Op = "stop"
	Remove        Op = "remove"
)

// A Step is one operation to do.
type Step struct {
	Op        Op
	Container string // its name
	ID        string // of the container or the sandbox
	Attempt   uint32 // of a sandbox or container to make
	Grace     time.Duration
	Until     time.Time // the end of the grace period
	Why       Why
	Backoff   Backoff // to remember with a Start
}

// lane is the key of starts: there is one at a time, so that containers start
// in their order, each with its post-start hook done before the next.
const lane = "start"

// Key names what a step works on. Of two steps with one key only one is done
// at a time.
func (s Step) Key() string {
	switch s.Op {
	case Start:
		return lane
	case PreStop, Stop, Remove:
		return s.ID
	}
	return ""
}

// Subject is what a step's failure is remembered for: the pod, a container to
// start by its name, or one that there is by its id.
func (s Step) Subject() string {
	if s.Op == Start {
		return s.Container
	}
	return s.Key()
}

// A Why is the reason for which a running container is killed.
type Why string

// The reasons. A container that is killed because its pod ends has none.
const (
	Liveness  Why = "liveness"
	Startup   Why = "startup"
	Changed   Why = "changed"
	PostStart Why = "post-start"
	Reset     Why = "reset"
	Lost      Why = "lost"
)

// A Plan is what to do now.
type Plan struct {
	Steps []Step
	// Wait is when to ask again though nothing has changed; zero is never.
	Wait time.Duration
	// Ending says that the pod is being ended, so that whatever is being
	// started for it is to be given up.
	Ending bool
}

// soon lowers the plan's wait to d.
func (p *Plan) soon(d time.Duration) {
	if d > 0 && (p.Wait == 0 || d < p.Wait) {
		p.Wait = d
	}
}

// Next is what to do now for the pod. No steps and no wait mean that it is as
// it should be.
func Next(s State) Plan {
	if s.ending() {
		p := Plan{Ending: true}
		s.down(&p)
		return p
	}
	var p Plan
	if left := s.deadline(); left > 0 {
		p.soon(left)
	}
	if !s.Blocked {
		s.up(&p)
	}
	return p
}

// ending tells whether the pod is on its way out, for whatever reason.
func (s State) ending() bool {
	return s.Gone || s.Pod.DeletionTimestamp != nil || s.end() != nil || terminal(s.Was.Phase) || s.finished()
}

func terminal(p corev1.PodPhase) bool { return p == corev1.PodSucceeded || p == corev1.PodFailed }

// end is why the kubelet ends the pod; nil where it does not.
func (s State) end() *End {
	if s.End == nil && s.deadline() < 0 {
		return &End{Reason: "DeadlineExceeded", Message: "Pod was active on the node longer than the specified deadline"}
	}
	return s.End
}

// deadline is how long the pod may still be active: less than zero where no
// longer, zero where it has no deadline.
func (s State) deadline() time.Duration {
	if s.Pod.Spec.ActiveDeadlineSeconds == nil || s.Was.StartTime.IsZero() {
		return 0
	}
	left := s.Was.StartTime.Add(time.Duration(*s.Pod.Spec.ActiveDeadlineSeconds) * time.Second).Sub(s.Now)
	if left <= 0 {
		return -1
	}
	return left
}

// up works towards everything running.
func (s State) up(p *Plan) {
	if s.busy("") {
		return
	}
	if !s.Prepared || s.Stale {
		s.add(p, Step{Op: Prepare})
		if !s.Prepared {
			return
		}
	}
	if !s.usable() {
		s.renew(p)
		return
	}
	s.prune(p)
	if s.reset(p) {
		return
	}
	for _, c := range specs(s.Pod) {
		if run := s.newest(c.Name); c.role == ephemeral && run == nil {
			s.begin(p, c, nil)
		}
	}
	if !s.initialize(p) {
		return
	}
	for _, c := range specs(s.Pod) {
		if c.role == main {
			s.keep(p, c)
		}
	}
}

// usable tells whether the newest sandbox can take containers.
func (s State) usable() bool {
	if len(s.Sandboxes) == 0 {
		return false
	}
	box := s.Sandboxes[0]
	return box.Ready && !box.Stopped && box.HostNetwork == s.Pod.Spec.HostNetwork && (box.HostNetwork || len(box.IPs) > 0)
}

// renew makes a sandbox, once nothing is left running in an older one.
func (s State) renew(p *Plan) {
	left := false
	for i := range s.Containers {
		if c := &s.Containers[i]; c.alive() {
			s.kill(p, c, "", s.ownGrace(), true)
			left = true
		}
	}
	if left || s.busy(lane) {
		return
	}
	for _, box := range s.Sandboxes {
		if !box.Stopped {
			s.add(p, Step{Op: StopSandbox, ID: box.ID})
			return
		}
	}
	var attempt uint32
	if len(s.Sandboxes) > 0 {
		attempt = s.Sandboxes[0].Attempt + 1
	}
	s.add(p, Step{Op: CreateSandbox, Attempt: attempt})
}

// initialize works towards all init containers done and all sidecars up, and
// tells whether they are.
func (s State) initialize(p *Plan) bool {
	var list []spec
	for _, c := range specs(s.Pod) {
		if c.role == initial || c.role == sidecar {
			list = append(list, c)
		}
	}
	done, reached := s.initialized(), -1
	for i, c := range list {
		if s.here(c.Name) != nil {
			reached = i
		}
	}
	for i, c := range list {
		run := s.here(c.Name)
		switch past := done || i < reached; {
		case c.role == sidecar:
			s.keep(p, c)
			if !past && !s.started(c, run) {
				return false
			}
		case past || run != nil && run.Phase == Exited && run.ExitCode == 0:
		default:
			s.keep(p, c)
			return false
		}
	}
	return true
}

// keep works towards one container running: starts it where it does not and
// should, kills it where it should not go on as it is.
func (s State) keep(p *Plan, c spec) {
	run := s.newest(c.Name)
	if c.role != main {
		run = s.here(c.Name)
	}
	switch {
	case run == nil, run.Phase == Created:
		s.begin(p, c, run)
	case run.Phase == Exited:
		if restarts(s.Pod, c, run.ExitCode) {
			s.begin(p, c, run)
		}
	default:
		if why, grace := s.unfit(c, run); why != "" {
			s.kill(p, run, why, grace, true)
		}
	}
}

// unfit is why a running container is to be killed and how long it is given.
func (s State) unfit(c spec, run *Container) (Why, time.Duration) {
	if k, ok := s.Killing[run.ID]; ok {
		return k.Why, s.probeGrace(c, k.Why)
	}
	switch probes := s.Probes[run.ID]; {
	case run.Phase == Unknown:
		return Lost, s.ownGrace()
	case s.starting(c.Name) || c.role == initial:
		return "", 0
	case run.Hash != "" && run.Hash != Hash(c.Container):
		return Changed, s.ownGrace()
	case probes.Startup == Bad:
		return Startup, s.probeGrace(c, Startup)
	case probes.Liveness == Bad:
		return Liveness, s.probeGrace(c, Liveness)
	}
	return "", 0
}

// begin starts a container, when its back-off and its trouble allow.
func (s State) begin(p *Plan, c spec, before *Container) {
	step := Step{Op: Start, Container: c.Name}
	if old := s.newest(c.Name); old != nil {
		step.Attempt = uint32(old.Attempt) + 1
	}
	if was := find(s.Was, c); was != nil {
		n := was.RestartCount
		if was.ContainerID != "" {
			n++
		}
		step.Attempt = max(step.Attempt, uint32(n))
	}
	if before != nil && before.Phase == Exited {
		var wait time.Duration
		if wait, step.Backoff = s.pause(c, before); wait > 0 {
			p.soon(wait)
			return
		}
	}
	s.add(p, step)
}

// add adds a step, but for one whose subject is worked on already and one that
// failed and is to wait.
func (s State) add(p *Plan, step Step) {
	if t, ok := s.Trouble[step.Subject()]; ok && s.Now.Before(t.Until) {
		p.soon(t.Until.Sub(s.Now))
		return
	}
	key := step.Key()
	if s.busy(key) || slices.ContainsFunc(p.Steps, func(other Step) bool { return other.Key() == key }) {
		return
	}
	p.Steps = append(p.Steps, step)
}

func (s State) busy(key string) bool {
	_, ok := s.Doing[key]
	return ok
}

// prune removes containers that nobody asks about any more: all of a name but
// the newest and the one before, whose end and log the status refers to; and
// sandboxes that hold none.
func (s State) prune(p *Plan) {
	seen := map[string]int{}
	held := map[string]bool{}
	for i, c := range s.Containers {
		seen[c.Name]++
		if seen[c.Name] > 2 && !s.Containers[i].alive() {
			s.add(p, Step{Op: Remove, ID: c.ID, Container: c.Name})
		} else {
			held[c.Sandbox] = true
		}
	}
	for i, box := range s.Sandboxes {
		if i > 0 && !held[box.ID] {
			s.add(p, Step{Op: RemoveSandbox, ID: box.ID})
		}
	}
}

// reset works towards all containers gone when one has ended in a way for
// which the pod's rules say that all are to start again, and tells whether
// that goes on.
func (s State) reset(p *Plan) bool {
	var source string
	for _, c := range specs(s.Pod) {
		run := s.here(c.Name)
		if run != nil && run.Phase == Exited && rule(c, run.ExitCode) == corev1.ContainerRestartRuleActionRestartAllContainers {
			source = run.ID
		}
	}
	if source == "" || s.busy(lane) {
		return source != ""
	}
	others := false
	for i := range s.Containers {
		c := &s.Containers[i]
		switch {
		case c.ID == source:
			continue
		case c.alive():
			s.kill(p, c, Reset, 0, false)
		default:
			s.add(p, Step{Op: Remove, ID: c.ID, Container: c.Name, Why: Reset})
		}
		others = true
	}
	if !others { // the source goes last: while it is there this goes on
		s.add(p, Step{Op: Remove, ID: source, Why: Reset})
	}
	return true
}
