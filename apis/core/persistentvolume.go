package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var persistentVolumes = apis.Define(apis.Resource[*corev1.PersistentVolume]{
	Plural:   "persistentvolumes",
	Short:    []string{"pv"},
	Scope:    apis.Cluster,
	Prepare:  meta.KeepStatus[*corev1.PersistentVolume],
	Subs:     []apis.Sub[*corev1.PersistentVolume]{meta.Status[*corev1.PersistentVolume](nil)},
	Lifetime: apis.Lifetime[*corev1.PersistentVolume]{ReturnsDeleted: true},
})
