package apps

import (
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var replicaSets = apis.Define(apis.Resource[*appsv1.ReplicaSet]{
	Plural:     "replicasets",
	Short:      []string{"rs"},
	Categories: []string{"all"},

	Prepare: meta.KeepStatus[*appsv1.ReplicaSet],
	Spec:    func(r *appsv1.ReplicaSet) any { return &r.Spec },
	Subs:    []apis.Sub[*appsv1.ReplicaSet]{meta.Status[*appsv1.ReplicaSet](nil)},
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
