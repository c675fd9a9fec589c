package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis"
)

var podTemplates = apis.Define(apis.Resource[*corev1.PodTemplate]{
	Plural:   "podtemplates",
	Spec:     func(t *corev1.PodTemplate) any { return &t.Template },
	Lifetime: apis.Lifetime[*corev1.PodTemplate]{ReturnsDeleted: true},
})
