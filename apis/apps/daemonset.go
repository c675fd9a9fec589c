package apps

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var daemonSets = apis.Define(apis.Resource[*appsv1.DaemonSet]{
	Plural:     "daemonsets",
	Short:      []string{"ds"},
	Categories: []string{"all"},

	Prepare: meta.KeepStatus[*appsv1.DaemonSet],
	Spec:    func(d *appsv1.DaemonSet) any { return &d.Spec },
	Subs:    []apis.Sub[*appsv1.DaemonSet]{meta.Status[*appsv1.DaemonSet](nil)},

	Columns: append([]apis.Column[*appsv1.DaemonSet]{
		{Name: "Desired", Type: "integer", Cell: func(d *appsv1.DaemonSet, _ time.Time) any { return int64(d.Status.DesiredNumberScheduled) }},
		{Name: "Current", Type: "integer", Cell: func(d *appsv1.DaemonSet, _ time.Time) any { return int64(d.Status.CurrentNumberScheduled) }},
		{Name: "Ready", Type: "integer", Cell: func(d *appsv1.DaemonSet, _ time.Time) any { return int64(d.Status.NumberReady) }},
		{Name: "Up-to-date", Type: "integer", Cell: func(d *appsv1.DaemonSet, _ time.Time) any { return int64(d.Status.UpdatedNumberScheduled) }},
		{Name: "Available", Type: "integer", Cell: func(d *appsv1.DaemonSet, _ time.Time) any { return int64(d.Status.NumberAvailable) }},
		{Name: "Node Selector", Cell: func(d *appsv1.DaemonSet, _ time.Time) any {
			return labels.FormatLabels(d.Spec.Template.Spec.NodeSelector)
		}},
	}, meta.WorkloadColumns(
		func(d *appsv1.DaemonSet) *corev1.PodSpec { return &d.Spec.Template.Spec },
		func(d *appsv1.DaemonSet) string { return metav1.FormatLabelSelector(d.Spec.Selector) },
	)...),
})
