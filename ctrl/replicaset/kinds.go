package replicaset

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/ctrl"
)

func picksOf(rs *appsv1.ReplicaSet) labels.Selector { return ctrl.Selector(rs.Spec.Selector) }

func picksOfRC(rc *corev1.ReplicationController) labels.Selector {
	return labels.SelectorFromSet(rc.Spec.Selector)
}

func asSet(rs *appsv1.ReplicaSet) set {
	return set{
		obj: rs, kind: setKind, picks: picksOf(rs), template: &rs.Spec.Template,
		replicas: int(*rs.Spec.Replicas), minReady: rs.Spec.MinReadySeconds, status: rs.Status,
		with: func(s appsv1.ReplicaSetStatus) apis.Object {
			out := rs.DeepCopy()
			out.Status = s
			return out
		},
	}
}

func rcAsSet(rc *corev1.ReplicationController) set {
	return set{
		obj: rc, kind: rcKind, picks: picksOfRC(rc), template: rc.Spec.Template,
		replicas: int(*rc.Spec.Replicas), minReady: rc.Spec.MinReadySeconds, status: fromRC(rc.Status),
		with: func(s appsv1.ReplicaSetStatus) apis.Object {
			out := rc.DeepCopy()
			out.Status = toRC(s)
			return out
		},
	}
}

func fromRC(s corev1.ReplicationControllerStatus) appsv1.ReplicaSetStatus {
	out := appsv1.ReplicaSetStatus{
		Replicas: s.Replicas, FullyLabeledReplicas: s.FullyLabeledReplicas, ReadyReplicas: s.ReadyReplicas,
		AvailableReplicas: s.AvailableReplicas, ObservedGeneration: s.ObservedGeneration,
	}
	for _, c := range s.Conditions {
		out.Conditions = append(out.Conditions, appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetConditionType(c.Type), Status: c.Status,
			LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
		})
	}
	return out
}

func toRC(s appsv1.ReplicaSetStatus) corev1.ReplicationControllerStatus {
	out := corev1.ReplicationControllerStatus{
		Replicas: s.Replicas, FullyLabeledReplicas: s.FullyLabeledReplicas, ReadyReplicas: s.ReadyReplicas,
		AvailableReplicas: s.AvailableReplicas, ObservedGeneration: s.ObservedGeneration,
	}
	for _, c := range s.Conditions {
		out.Conditions = append(out.Conditions, corev1.ReplicationControllerCondition{
			Type: corev1.ReplicationControllerConditionType(c.Type), Status: c.Status,
			LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
		})
	}
	return out
}

func sprint(format string, err error) string { return fmt.Sprintf(format, err) }
