package storage

import (
	storagev1 "k8s.io/api/storage/v1"

	"github.com/knarr-dev/knarr/apis"
)

var csiDrivers = apis.Define(apis.Resource[*storagev1.CSIDriver]{
	Plural:   "csidrivers",
	Scope:    apis.Cluster,
	Lifetime: apis.Lifetime[*storagev1.CSIDriver]{NeedsVersion: true, ReturnsDeleted: true},
})
