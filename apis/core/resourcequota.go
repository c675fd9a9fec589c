package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var resourceQuotas = apis.Define(apis.Resource[*corev1.ResourceQuota]{
	Plural:   "resourcequotas",
	Short:    []string{"quota"},
	Prepare:  meta.KeepStatus[*corev1.ResourceQuota],
	Subs:     []apis.Sub[*corev1.ResourceQuota]{meta.Status[*corev1.ResourceQuota](nil)},
	Lifetime: apis.Lifetime[*corev1.ResourceQuota]{ReturnsDeleted: true},
})
