package apps

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var statefulSets = apis.Define(apis.Resource[*appsv1.StatefulSet]{
	Plural:     "statefulsets",
	Short:      []string{"sts"},
	Categories: []string{"all"},

	Prepare: meta.KeepStatus[*appsv1.StatefulSet],
	Spec:    func(s *appsv1.StatefulSet) any { return &s.Spec },
	Subs:    []apis.Sub[*appsv1.StatefulSet]{meta.Status[*appsv1.StatefulSet](nil)},
	Scale: &apis.Scale[*appsv1.StatefulSet]{
		Wanted:   func(s *appsv1.StatefulSet) *int32 { return meta.Wanted(&s.Spec.Replicas) },
		Has:      func(s *appsv1.StatefulSet) int32 { return s.Status.Replicas },
		Selector: func(s *appsv1.StatefulSet) string { return selectorString(s.Spec.Selector) },
	},

	Columns: append([]apis.Column[*appsv1.StatefulSet]{
		{Name: "Ready", Cell: func(s *appsv1.StatefulSet, _ time.Time) any {
			return fmt.Sprintf("%d/%d", s.Status.ReadyReplicas, meta.Deref(s.Spec.Replicas, 0))
		}},
	}, meta.ContainerColumns(func(s *appsv1.StatefulSet) *corev1.PodSpec { return &s.Spec.Template.Spec })...),
})
