package loop

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/sched"
)

// noteLimit is the most that fits into an event.
const noteLimit = 1024

func (l *loop) event(p *sched.Pod, kind, reason, action, note string) {
	if len(note) > noteLimit {
		const cut = " ..."
		note = note[:noteLimit-len(cut)] + cut
	}
	if r := l.recorder[p.Spec.SchedulerName]; r != nil {
		r.Eventf(p.Pod, nil, kind, reason, action, "%s", note)
	}
}

// status is what the scheduler writes of a pod's status.
type status struct {
	Condition *corev1.PodCondition
	Nominated string // as is; empty for none
}

// report says why a pod has no node, in an event and in its condition, and to
// which node it has a claim.
func (l *loop) report(ctx context.Context, p *sched.Pod, reason, msg, nominated string) {
	l.event(p, corev1.EventTypeWarning, "FailedScheduling", "Scheduling", msg)
	c := condition(p.Pod, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: reason, Message: msg})
	if c == nil && nominated == p.Status.NominatedNodeName {
		return
	}
	l.calls.do(p.UID, func() {
		err := l.patch(ctx, p.Pod, status{c, nominated})
		if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
			slog.WarnContext(ctx, "say why a pod has no node", "obj", "Pod/"+p.Namespace+"/"+p.Name, "err", err)
		}
	})
}

// condition completes a condition of p, nil if p has it already.
func condition(p *corev1.Pod, c corev1.PodCondition) *corev1.PodCondition {
	c.ObservedGeneration = p.Generation
	c.LastTransitionTime = metav1.NewTime(time.Now())
	for _, old := range p.Status.Conditions {
		if old.Type != c.Type || old.Status != c.Status {
			continue
		}
		if old.Reason == c.Reason && old.Message == c.Message {
			return nil
		}
		c.LastTransitionTime = old.LastTransitionTime
	}
	return &c
}

// patch writes to the status of p, if it is still the same pod.
func (l *loop) patch(ctx context.Context, p *corev1.Pod, s status) error {
	fields := map[string]any{"nominatedNodeName": nil}
	if s.Nominated != "" {
		fields["nominatedNodeName"] = s.Nominated
	}
	if s.Condition != nil {
		fields["conditions"] = []*corev1.PodCondition{s.Condition}
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.UID}, "status": fields})
	if err != nil {
		return fmt.Errorf("encode the status of %s/%s: %w", p.Namespace, p.Name, err)
	}
	if _, err = l.Client.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status"); err != nil {
		return fmt.Errorf("patch the status of %s/%s: %w", p.Namespace, p.Name, err)
	}
	return nil
}
