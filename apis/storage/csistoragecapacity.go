package storage

import (
	storagev1 "k8s.io/api/storage/v1"

	"github.com/knarr-dev/knarr/apis"
)

var csiStorageCapacities = apis.Define(apis.Resource[*storagev1.CSIStorageCapacity]{
	Plural:   "csistoragecapacities",
	Lifetime: apis.Lifetime[*storagev1.CSIStorageCapacity]{NeedsVersion: true},
})
