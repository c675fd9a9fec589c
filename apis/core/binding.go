package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis"
)

var bindings = apis.Define(apis.Resource[*corev1.Binding]{
	Plural: "bindings",
	Verbs:  []string{"create"},
})
