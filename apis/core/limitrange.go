package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis"
)

var limitRanges = apis.Define(apis.Resource[*corev1.LimitRange]{
	Plural:   "limitranges",
	Short:    []string{"limits"},
	Lifetime: apis.Lifetime[*corev1.LimitRange]{UpsertsOnUpdate: true},
})
