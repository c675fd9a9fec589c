// Package storage says what the kinds of the storage.k8s.io group are: where volumes come from.
package storage

import (
	storagev1 "k8s.io/api/storage/v1"

	"github.com/knarr-dev/knarr/apis"
)

// Group is storage.k8s.io/v1.
var Group = apis.In(storagev1.SchemeGroupVersion, csiDrivers, csiNodes, csiStorageCapacities, storageClasses, volumeAttachments, volumeAttributesClasses)
