package apps

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var deployments = apis.Define(apis.Resource[*appsv1.Deployment]{
	Plural:     "deployments",
	Short:      []string{"deploy"},
	Categories: []string{"all"},

	Prepare: meta.KeepStatus[*appsv1.Deployment],
	Spec:    func(d *appsv1.Deployment) any { return &d.Spec },
	Subs:    []apis.Sub[*appsv1.Deployment]{meta.Status[*appsv1.Deployment](nil, "metadata.labels")},
	Scale: &apis.Scale[*appsv1.Deployment]{
		Wanted:   func(d *appsv1.Deployment) *int32 { return meta.Wanted(&d.Spec.Replicas) },
		Has:      func(d *appsv1.Deployment) int32 { return d.Status.Replicas },
		Selector: func(d *appsv1.Deployment) string { return selectorString(d.Spec.Selector) },
	},

	Columns: append([]apis.Column[*appsv1.Deployment]{
		{Name: "Ready", Cell: func(d *appsv1.Deployment, _ time.Time) any {
			return fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, meta.Deref(d.Spec.Replicas, 0))
		}},
		{Name: "Up-to-date", Cell: func(d *appsv1.Deployment, _ time.Time) any { return int64(d.Status.UpdatedReplicas) }},
		{Name: "Available", Cell: func(d *appsv1.Deployment, _ time.Time) any { return int64(d.Status.AvailableReplicas) }},
	}, meta.WorkloadColumns(
		func(d *appsv1.Deployment) *corev1.PodSpec { return &d.Spec.Template.Spec },
		func(d *appsv1.Deployment) string {
			selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
			if err != nil {
				return "<invalid>"
			}
			return selector.String()
		},
	)...),
})
