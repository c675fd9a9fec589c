// Package probe asks containers how they are, as often as their pods say, and
// reports when the answer has changed for good.
//
// A startup probe comes first and alone; when it has succeeded, or where there
// is none, liveness and readiness are asked. What follows from the answers is
// package pod's to say.
package probe

import (
	"context"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/kubelet"
)

// A Kind is what a probe is about. It reads as upstream's events have it.
type Kind string

// The kinds of probes.
const (
	Startup   Kind = "Startup"
	Liveness  Kind = "Liveness"
	Readiness Kind = "Readiness"
)

// A Prober probes.
type Prober struct {
	// Exec runs a command in a container.
	Exec func(ctx context.Context, id string, command []string, limit time.Duration) (output []byte, code int32, err error)
	Tell kubelet.Tell
	// Report is told when a probe has come to a result, and again when that has
	// changed. That a container lives is not reported: it is taken to.
	Report func(pod types.UID, container string, kind Kind, good bool)

	began time.Time
}

// Hook is the probes' part in a pod's life.
func (p *Prober) Hook() kubelet.Hook {
	p.began = time.Now()
	return kubelet.Hook{Name: "probe", Running: p.begin}
}

// attempts is how often a probe is made that could not be, before that is
// given up until the next time.
const attempts = 3

// begin probes a container until ctx ends.
func (p *Prober) begin(ctx context.Context, c *kubelet.Container) {
	if c.Spec.StartupProbe == nil && c.Spec.LivenessProbe == nil && c.Spec.ReadinessProbe == nil {
		return
	}
	// Liveness and startup are of no interest once the pod ends.
	living, stop := context.WithCancel(ctx)
	go func() {
		defer stop()
		select {
		case <-ctx.Done():
		case <-c.Ending:
		}
	}()
	go func() {
		if c.Spec.StartupProbe != nil && !started(c) && !p.startup(living, c) {
			return
		}
		if c.Spec.LivenessProbe != nil {
			go p.liveness(living, c)
		}
		if c.Spec.ReadinessProbe != nil {
			p.readiness(ctx, c)
		}
	}()
}

// started tells whether a container that was found running had got past its
// startup probe already.
func started(c *kubelet.Container) bool {
	for _, list := range [][]corev1.ContainerStatus{c.Pod.Status.ContainerStatuses, c.Pod.Status.InitContainerStatuses} {
		for _, st := range list {
			if st.Name == c.Spec.Name {
				return st.Started != nil && *st.Started
			}
		}
	}
	return false
}

// startup returns whether the probe has succeeded. The first try comes at once
// so that what starts quickly need not wait; that it fails does not count.
func (p *Prober) startup(ctx context.Context, c *kubelet.Container) bool {
	spec := c.Spec.StartupProbe
	t := p.timer(c, spec, 0)
	for early := true; t.next(ctx); early = false {
		a := p.ask(ctx, c, spec)
		if early && (!a.good || a.err != nil) {
			continue
		}
		if result, decided := p.count(c, Startup, spec, t, a); decided {
			p.Report(c.Pod.UID, c.ID, Startup, result)
			return result
		}
	}
	return false
}

// liveness ends with the container's first failure for good. It begins a
// period after the container: before that nobody could expect it to answer.
func (p *Prober) liveness(ctx context.Context, c *kubelet.Container) {
	spec := c.Spec.LivenessProbe
	t := p.timer(c, spec, every(spec))
	for t.next(ctx) {
		a := p.ask(ctx, c, spec)
		if result, decided := p.count(c, Liveness, spec, t, a); decided && !result {
			p.Report(c.Pod.UID, c.ID, Liveness, result)
			return
		}
	}
}

func (p *Prober) readiness(ctx context.Context, c *kubelet.Container) {
	spec := c.Spec.ReadinessProbe
	t := p.timer(c, spec, 0)
	var was *bool
	for t.next(ctx) {
		a := p.ask(ctx, c, spec)
		result, decided := p.count(c, Readiness, spec, t, a)
		if decided && (was == nil || *was != result) {
			p.Report(c.Pod.UID, c.ID, Readiness, result)
			was = &result
		}
	}
}

// count adds an answer to those before it, tells of a bad one, and says whether
// there are enough of one kind in a row for a result.
func (p *Prober) count(c *kubelet.Container, kind Kind, spec *corev1.Probe, t *timer, a answer) (result, decided bool) {
	if t.ctx.Err() != nil {
		return false, false
	}
	switch {
	case a.err != nil:
		p.Tell(c.Pod, c.Spec.Name, corev1.EventTypeWarning, "Unhealthy", string(kind)+" probe errored and resulted in unknown state: "+a.err.Error())
		return false, false
	case a.good && a.said != "":
		p.Tell(c.Pod, c.Spec.Name, corev1.EventTypeWarning, "ProbeWarning", string(kind)+" probe warning: "+a.said)
	case !a.good:
		p.Tell(c.Pod, c.Spec.Name, corev1.EventTypeWarning, "Unhealthy", string(kind)+" probe failed: "+a.said)
	}
	if a.good != t.last {
		t.last, t.run = a.good, 0
	}
	t.run++
	enough := spec.FailureThreshold
	if a.good {
		enough = spec.SuccessThreshold
	}
	return a.good, t.run >= max(enough, 1)
}

// An answer is what a probe found out. What a good one says is a warning; an
// error is that the probe could not be made.
type answer struct {
	good bool
	said string
	err  error
}

// ask makes a probe, a few times where it cannot be made.
func (p *Prober) ask(ctx context.Context, c *kubelet.Container, spec *corev1.Probe) (a answer) {
	for range attempts {
		if a.good, a.said, a.err = p.once(ctx, c, spec); a.err == nil {
			break
		}
	}
	return a
}

func every(spec *corev1.Probe) time.Duration {
	return max(time.Duration(spec.PeriodSeconds)*time.Second, time.Second)
}

// A timer says when to probe, and keeps the run of like answers.
type timer struct {
	ctx    context.Context //nolint:containedctx // of the probe that is being made
	due    time.Time
	period time.Duration
	last   bool
	run    int32
}

// timer begins when the container's initial delay is over, at least wait after
// its start. A kubelet that has just started finds many containers at once:
// they are spread over the period.
func (p *Prober) timer(c *kubelet.Container, spec *corev1.Probe, wait time.Duration) *timer {
	t := &timer{period: every(spec)}
	delay := max(time.Duration(spec.InitialDelaySeconds)*time.Second, wait)
	now := time.Now()
	t.due = now
	if due := c.Started.Add(delay); due.After(now) {
		t.due = due
	}
	if c.Started.Before(p.began) {
		t.due = t.due.Add(rand.N(t.period))
	}
	return t
}

// next waits until the probe is due and tells whether it still is wanted.
func (t *timer) next(ctx context.Context) bool {
	t.ctx = ctx
	w := time.NewTimer(time.Until(t.due))
	defer w.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-w.C:
	}
	t.due = t.due.Add(t.period)
	if now := time.Now(); t.due.Before(now) { // the machine slept, or a probe took long
		t.due = now.Add(t.period)
	}
	return ctx.Err() == nil
}
