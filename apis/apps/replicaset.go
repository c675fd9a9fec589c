package apps

import (
	"cmp"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/podspec"
)

var replicaSets = apis.Define(apis.Resource[*appsv1.ReplicaSet]{
	Plural:     "replicasets",
	Short:      []string{"rs"},
	Categories: []string{"all"},

	Default: func(r *appsv1.ReplicaSet) {
		podspec.Default(&r.Spec.Template.Spec)
		r.Spec.Replicas = cmp.Or(r.Spec.Replicas, new(int32(1)))
	},
	Prepare: func(r, old *appsv1.ReplicaSet) {
		meta.KeepStatus(r, old)
		podspec.DropTemplate(&r.Spec.Template, replicaTemplate(old))
	},
	Validate: validateReplicaSet,
	Warn:     warnReplicaSet,
	Spec:     func(r *appsv1.ReplicaSet) any { return &r.Spec },
	Subs:     []apis.Sub[*appsv1.ReplicaSet]{meta.Status(validateReplicaSetStatus)},
	Scale: &apis.Scale[*appsv1.ReplicaSet]{
		Wanted:   func(r *appsv1.ReplicaSet) *int32 { return meta.Wanted(&r.Spec.Replicas) },
		Has:      func(r *appsv1.ReplicaSet) int32 { return r.Status.Replicas },
		Selector: func(r *appsv1.ReplicaSet) string { return selectorString(r.Spec.Selector) },
	},

	Fields: map[string]func(*appsv1.ReplicaSet) string{
		"status.replicas": func(r *appsv1.ReplicaSet) string { return strconv.Itoa(int(r.Status.Replicas)) },
	},
	Columns: append([]apis.Column[*appsv1.ReplicaSet]{
		{Name: "Desired", Type: "integer", Cell: func(r *appsv1.ReplicaSet, _ time.Time) any { return int64(meta.Deref(r.Spec.Replicas, 0)) }},
		{Name: "Current", Type: "integer", Cell: func(r *appsv1.ReplicaSet, _ time.Time) any { return int64(r.Status.Replicas) }},
		{Name: "Ready", Type: "integer", Cell: func(r *appsv1.ReplicaSet, _ time.Time) any { return int64(r.Status.ReadyReplicas) }},
	}, meta.WorkloadColumns(
		func(r *appsv1.ReplicaSet) *corev1.PodSpec { return &r.Spec.Template.Spec },
		func(r *appsv1.ReplicaSet) string { return metav1.FormatLabelSelector(r.Spec.Selector) },
	)...),
})

func replicaTemplate(r *appsv1.ReplicaSet) *corev1.PodTemplateSpec {
	if r == nil {
		return nil
	}
	return &r.Spec.Template
}

func validateReplicaSet(r, old *appsv1.ReplicaSet) field.ErrorList {
	at := check.New().Dot("spec")
	check.NonNegative(at.Dot("replicas"), *r.Spec.Replicas)
	check.NonNegative(at.Dot("minReadySeconds"), r.Spec.MinReadySeconds)
	replicas(at, r.Spec.Selector, &r.Spec.Template, replicaTemplate(old))
	if old != nil {
		at.Dot("selector").Same(r.Spec.Selector, old.Spec.Selector)
	}
	return at.Errors()
}

func validateReplicaSetStatus(r, _ *appsv1.ReplicaSet) field.ErrorList {
	s, at := r.Status, check.New().Dot("status")
	check.NonNegative(at.Dot("replicas"), s.Replicas)
	check.NonNegative(at.Dot("fullyLabeledReplicas"), s.FullyLabeledReplicas)
	check.NonNegative(at.Dot("readyReplicas"), s.ReadyReplicas)
	check.NonNegative(at.Dot("availableReplicas"), s.AvailableReplicas)
	check.NonNegative(at.Dot("observedGeneration"), s.ObservedGeneration)
	check.NonNegativeIf(at.Dot("terminatingReplicas"), s.TerminatingReplicas)
	check.AtMost(at.Dot("fullyLabeledReplicas"), s.FullyLabeledReplicas, s.Replicas, "status.replicas")
	check.AtMost(at.Dot("readyReplicas"), s.ReadyReplicas, s.Replicas, "status.replicas")
	check.AtMost(at.Dot("availableReplicas"), s.AvailableReplicas, s.Replicas, "status.replicas")
	check.AtMost(at.Dot("availableReplicas"), s.AvailableReplicas, s.ReadyReplicas, "readyReplicas")
	return at.Errors()
}

func warnReplicaSet(r, old *appsv1.ReplicaSet) []string {
	var w check.Warnings
	if old == nil {
		meta.WarnPodNames(&w, r.Name)
	} else if equality.Semantic.DeepEqual(r.Spec, old.Spec) {
		return nil
	}
	w.Add(podspec.Template(&r.Spec.Template, nil).Warn(check.At{}.Dot("spec.template"))...)
	return w
}
