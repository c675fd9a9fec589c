package pod

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/dump"
)

const (
	firstBackoff   = 10 * time.Second
	defaultBackoff = 5 * time.Minute
)

// Hash is of what a running container cannot take over from a changed
// specification. It is upstream's number, so that a kubelet of either kind
// recognizes the containers of the other.
func Hash(c *corev1.Container) string {
	b, err := json.Marshal(map[string]string{"name": c.Name, "image": c.Image})
	if err != nil {
		return "" // two strings always marshal
	}
	h := fnv.New32a()
	fmt.Fprintf(h, "%v", dump.ForHash(b))
	return strconv.FormatUint(uint64(h.Sum32()), 16)
}

// restarts tells whether a container that ended with code is started again.
func restarts(p *corev1.Pod, c spec, code int32) bool {
	switch c.role {
	case ephemeral:
		return false
	case sidecar:
		return true
	}
	if rule(c, code) != "" {
		return true
	}
	return policy(p, c, code)
}

// policy is restarts without the rules for exit codes.
func policy(p *corev1.Pod, c spec, code int32) bool {
	policy := corev1.ContainerRestartPolicy(p.Spec.RestartPolicy)
	if c.RestartPolicy != nil {
		policy = *c.RestartPolicy
	}
	switch policy {
	case corev1.ContainerRestartPolicyNever:
		return false
	case corev1.ContainerRestartPolicyOnFailure:
		return code != 0
	}
	// As upstream: an init container that is done is done whatever the policy.
	return c.role == main || code != 0
}

// rule is the action of the container's first rule for an exit code; empty
// where none is for it.
func rule(c spec, code int32) corev1.ContainerRestartRuleAction {
	for _, r := range c.RestartPolicyRules {
		if r.ExitCodes == nil {
			continue
		}
		listed := slices.Contains(r.ExitCodes.Values, code)
		if listed == (r.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn) {
			return r.Action
		}
	}
	return ""
}

// pause is how long a container that ended has to wait before its next start,
// and the back-off to remember with that start.
func (s State) pause(c spec, ended *Container) (time.Duration, Backoff) {
	limit := s.limit()
	b := s.Backoff[c.Name]
	next := Backoff{Delay: min(firstBackoff, limit), At: s.Now, Hash: Hash(c.Container)}
	if b.Delay == 0 || b.Hash != next.Hash || ended.Finished.Sub(b.At) > 2*limit {
		return 0, next
	}
	next.Delay = min(2*b.Delay, limit)
	return max(0, ended.Finished.Add(b.Delay).Sub(s.Now)), next
}

func (s State) limit() time.Duration {
	if s.MaxBackoff == 0 {
		return defaultBackoff
	}
	return s.MaxBackoff
}

// finished tells whether the pod has come to its own end: nothing that must
// run does, or ever will again.
func (s State) finished() bool {
	for _, c := range specs(s.Pod) {
		code, ended := s.outcome(c)
		switch {
		case c.role == initial && ended && code != 0 && !restarts(s.Pod, c, code):
			return true
		case c.role == main && (!ended || restarts(s.Pod, c, code)):
			return false
		}
	}
	return true
}

// outcome is how the newest run of a container ended, by the runtime or, where
// that has forgotten it, by the status.
func (s State) outcome(c spec) (code int32, ended bool) {
	if run := s.newest(c.Name); run != nil {
		return run.ExitCode, run.Phase == Exited
	}
	if was := find(s.Was, c); was != nil && was.State.Terminated != nil {
		return was.State.Terminated.ExitCode, true
	}
	return 0, false
}

// Restarts tells whether a container of the name that is killed is started
// again.
func Restarts(p *corev1.Pod, name string) bool {
	for _, c := range specs(p) {
		if c.Name == name {
			return c.role == sidecar || c.role != ephemeral && policy(p, c, lostCode)
		}
	}
	return false
}
