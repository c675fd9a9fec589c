package storage

import (
	storagev1 "k8s.io/api/storage/v1"

	"github.com/knarr-dev/knarr/apis"
)

var storageClasses = apis.Define(apis.Resource[*storagev1.StorageClass]{
	Plural:   "storageclasses",
	Short:    []string{"sc"},
	Scope:    apis.Cluster,
	Lifetime: apis.Lifetime[*storagev1.StorageClass]{ReturnsDeleted: true},
})
