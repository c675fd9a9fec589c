// Package apps says what the kinds of the apps group are: the workloads that
// keep pods running. What keeps them is in ctrl.
package apps

import (
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/apis"
)

// Group is apps/v1.
var Group = apis.In(appsv1.SchemeGroupVersion, controllerRevisions, daemonSets, deployments, replicaSets, statefulSets)

// selectorString is the selector as a scale tells it, empty where it is no selector.
func selectorString(s *metav1.LabelSelector) string {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return ""
	}
	return selector.String()
}
