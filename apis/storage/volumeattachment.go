package storage

import (
	storagev1 "k8s.io/api/storage/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var volumeAttachments = apis.Define(apis.Resource[*storagev1.VolumeAttachment]{
	Plural:   "volumeattachments",
	Scope:    apis.Cluster,
	Prepare:  meta.KeepStatus[*storagev1.VolumeAttachment],
	Subs:     []apis.Sub[*storagev1.VolumeAttachment]{meta.Status[*storagev1.VolumeAttachment](nil)},
	Lifetime: apis.Lifetime[*storagev1.VolumeAttachment]{NeedsVersion: true, ReturnsDeleted: true},
})
