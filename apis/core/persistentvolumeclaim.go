package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var persistentVolumeClaims = apis.Define(apis.Resource[*corev1.PersistentVolumeClaim]{
	Plural:   "persistentvolumeclaims",
	Short:    []string{"pvc"},
	Prepare:  meta.KeepStatus[*corev1.PersistentVolumeClaim],
	Subs:     []apis.Sub[*corev1.PersistentVolumeClaim]{meta.Status[*corev1.PersistentVolumeClaim](nil)},
	Lifetime: apis.Lifetime[*corev1.PersistentVolumeClaim]{ReturnsDeleted: true},
})
