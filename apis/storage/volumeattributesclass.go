package storage

import (
	storagev1 "k8s.io/api/storage/v1"

	"github.com/knarr-dev/knarr/apis"
)

var volumeAttributesClasses = apis.Define(apis.Resource[*storagev1.VolumeAttributesClass]{
	Plural:   "volumeattributesclasses",
	Short:    []string{"vac"},
	Scope:    apis.Cluster,
	Lifetime: apis.Lifetime[*storagev1.VolumeAttributesClass]{ReturnsDeleted: true},
})
