// Package apps says what the kinds of the apps group are: those that keep
// pods running.
package apps

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/podspec"
)

// Group is apps/v1.
var Group = apis.In(appsv1.SchemeGroupVersion, controllerRevisions, daemonSets, deployments, replicaSets, statefulSets)

func selectorString(s *metav1.LabelSelector) string {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return ""
	}
	return selector.String()
}

// selector checks the selector of a kind and makes it out, nil where it
// cannot be; unclear is what to say then.
func selector(at check.At, s *metav1.LabelSelector, kind, unclear string) labels.Selector {
	if s == nil {
		at.Required("")
	} else {
		meta.Selector(at, s, false)
		notEmpty(at, s, kind)
	}
	out, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		at.Invalid(s, unclear)
		return nil
	}
	return out
}

func notEmpty(at check.At, s *metav1.LabelSelector, kind string) {
	if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		at.Invalid(s, "empty selector is invalid for "+kind)
	}
}

// selects demands that the pods of a template are those of the selector.
func selects(at check.At, s labels.Selector, t *corev1.PodTemplateSpec) {
	if !s.Empty() && !s.Matches(labels.Set(t.Labels)) {
		at.Dot("metadata.labels").Invalid(t.Labels, "`selector` does not match template `labels`")
	}
}

// replicas checks what Deployments and ReplicaSets have in common.
func replicas(at check.At, s *metav1.LabelSelector, t, was *corev1.PodTemplateSpec) {
	selector := selector(at.Dot("selector"), s, "deployment", "invalid label selector")
	if selector == nil {
		return
	}
	at = at.Dot("template")
	selects(at, selector, t)
	podspec.ValidateTemplate(at, t, was)
	podspec.Restarts(at.Dot("spec"), &t.Spec, "ReplicaSet")
}

// collisions demands that a count of collisions does not fall.
func collisions(at check.At, now, was *int32) {
	if n := meta.Deref(now, 0); was != nil && (now == nil || n < *was) {
		at.Invalid(n, "cannot be decremented")
	}
}
