package deployment

import (
	"fmt"
	"math"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const timedOut = "ProgressDeadlineExceeded"

func (r *rollout) condition(t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range r.dep.Status.Conditions {
		if r.dep.Status.Conditions[i].Type == t {
			return &r.dep.Status.Conditions[i]
		}
	}
	return nil
}

// set makes c the condition of its type. One of the same status and reason
// stays as it is; one of the same status keeps the time of its transition.
func (r *rollout) set(c appsv1.DeploymentCondition) {
	if had := r.condition(c.Type); had != nil && had.Status == c.Status {
		if had.Reason == c.Reason {
			return
		}
		c.LastTransitionTime = had.LastTransitionTime
	}
	r.unset(c.Type)
	r.dep.Status.Conditions = append(r.dep.Status.Conditions, c)
}

func (r *rollout) unset(t appsv1.DeploymentConditionType) {
	r.dep.Status.Conditions = slices.DeleteFunc(slices.Clone(r.dep.Status.Conditions),
		func(c appsv1.DeploymentCondition) bool { return c.Type == t })
}

func (r *rollout) progress(is corev1.ConditionStatus, reason, format string, args ...any) {
	r.set(r.conditionOf(appsv1.DeploymentProgressing, is, reason, fmt.Sprintf(format, args...)))
}

func (r *rollout) conditionOf(t appsv1.DeploymentConditionType, is corev1.ConditionStatus, reason, message string) appsv1.DeploymentCondition {
	now := metav1.NewTime(r.now.Truncate(time.Second))
	return appsv1.DeploymentCondition{
		Type: t, Status: is, Reason: reason, Message: message, LastUpdateTime: now, LastTransitionTime: now,
	}
}

func (r *rollout) hasDeadline() bool {
	d := r.dep.Spec.ProgressDeadlineSeconds
	return d != nil && *d != math.MaxInt32
}

// notePause keeps the time of a pause from counting as lack of progress.
func (r *rollout) notePause() {
	c := r.condition(appsv1.DeploymentProgressing)
	if !r.hasDeadline() || c != nil && c.Reason == timedOut {
		return
	}
	noted := c != nil && c.Reason == "DeploymentPaused"
	switch {
	case r.dep.Spec.Paused && !noted:
		r.progress(corev1.ConditionUnknown, "DeploymentPaused", "Deployment is paused")
	case !r.dep.Spec.Paused && noted:
		r.progress(corev1.ConditionUnknown, "DeploymentResumed", "Deployment is resumed")
	}
}

// countAll makes the status what the sets say.
func (r *rollout) countAll() {
	all, s := r.all(), &r.dep.Status
	s.ObservedGeneration = r.dep.Generation
	s.Replicas = sum(all, func(s *appsv1.ReplicaSetStatus) int32 { return s.Replicas })
	s.ReadyReplicas = sum(all, func(s *appsv1.ReplicaSetStatus) int32 { return s.ReadyReplicas })
	s.AvailableReplicas = sum(all, available)
	s.UnavailableReplicas = max(0, total(all)-s.AvailableReplicas)
	s.TerminatingReplicas = terminating(all)
	s.UpdatedReplicas = 0
	if r.fresh != nil {
		s.UpdatedReplicas = r.fresh.Status.Replicas
	}
	_, missing := r.fences()
	is, reason, message := corev1.ConditionTrue, "MinimumReplicasAvailable", "Deployment has minimum availability."
	if s.AvailableReplicas < r.want()-missing {
		is, reason, message = corev1.ConditionFalse, "MinimumReplicasUnavailable", "Deployment does not have minimum availability."
	}
	r.set(r.conditionOf(appsv1.DeploymentAvailable, is, reason, message))
}

// terminating is nil where a set does not say how many of its pods are leaving.
func terminating(sets []*set) *int32 {
	n := int32(0)
	for _, s := range sets {
		switch {
		case s.Status.TerminatingReplicas != nil:
			n += *s.Status.TerminatingReplicas
		case s.Status.ObservedGeneration > 0:
			return nil
		}
	}
	return &n
}

// judge says how the rollout goes: whether it is complete, has come on since
// the last status, or hangs. One that is complete stays so when it is only scaled.
func (r *rollout) judge() {
	c := r.condition(appsv1.DeploymentProgressing)
	switch s := &r.dep.Status; {
	case !r.hasDeadline():
		r.unset(appsv1.DeploymentProgressing)
	case c != nil && c.Reason == "NewReplicaSetAvailable" && s.Replicas == s.UpdatedReplicas:
	case complete(r.dep):
		r.progress(corev1.ConditionTrue, "NewReplicaSetAvailable", "%s has successfully progressed.", r.subject())
	case r.cameOn():
		next := r.conditionOf(appsv1.DeploymentProgressing, corev1.ConditionTrue, "ReplicaSetUpdated", r.subject()+" is progressing.")
		if c != nil && c.Status == corev1.ConditionTrue {
			next.LastTransitionTime = c.LastTransitionTime
		}
		r.unset(appsv1.DeploymentProgressing) // so that it is set anew, with the time of this progress
		r.set(next)
	case c != nil && c.Reason != "NewReplicaSetAvailable" && c.Reason != timedOut && r.now.After(r.due(c)):
		r.progress(corev1.ConditionFalse, timedOut, "%s has timed out progressing.", r.subject())
	}
	r.copyFailure()
}

func (r *rollout) subject() string {
	if r.fresh != nil {
		return fmt.Sprintf("ReplicaSet %q", r.fresh.Name)
	}
	return fmt.Sprintf("Deployment %q", r.dep.Name)
}

func (r *rollout) cameOn() bool {
	is, was := &r.dep.Status, &r.was.Status
	return is.UpdatedReplicas > was.UpdatedReplicas || is.Replicas-is.UpdatedReplicas < was.Replicas-was.UpdatedReplicas ||
		is.ReadyReplicas > was.ReadyReplicas || is.AvailableReplicas > was.AvailableReplicas
}

// copyFailure shows a failure of a set as the deployment's, the fresh one's first.
func (r *rollout) copyFailure() {
	sets := r.old
	if r.fresh != nil {
		sets = append([]*set{r.fresh}, sets...)
	}
	for _, s := range sets {
		for _, c := range s.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure {
				r.set(appsv1.DeploymentCondition{
					Type: appsv1.DeploymentReplicaFailure, Status: c.Status, Reason: c.Reason, Message: c.Message,
					LastUpdateTime: c.LastTransitionTime, LastTransitionTime: c.LastTransitionTime,
				})
				return
			}
		}
	}
	r.unset(appsv1.DeploymentReplicaFailure)
}

func (r *rollout) due(c *appsv1.DeploymentCondition) time.Time {
	return c.LastUpdateTime.Add(time.Duration(*r.dep.Spec.ProgressDeadlineSeconds) * time.Second)
}

// deadline is when to look whether the rollout hangs, 0 where it need not be watched.
func (r *rollout) deadline() time.Duration {
	c := r.condition(appsv1.DeploymentProgressing)
	if r.dep.Spec.Paused || !r.hasDeadline() || c == nil || complete(r.dep) || c.Reason == timedOut {
		return 0
	}
	if c.Reason == "NewReplicaSetAvailable" {
		return 0
	}
	return max(time.Second, r.due(c).Sub(r.now)+time.Second) // past it, for the clock counts whole seconds
}
