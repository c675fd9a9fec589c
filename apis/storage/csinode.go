package storage

import (
	storagev1 "k8s.io/api/storage/v1"

	"github.com/knarr-dev/knarr/apis"
)

var csiNodes = apis.Define(apis.Resource[*storagev1.CSINode]{
	Plural:   "csinodes",
	Scope:    apis.Cluster,
	Lifetime: apis.Lifetime[*storagev1.CSINode]{NeedsVersion: true, ReturnsDeleted: true},
})
