package storage

import (
	"math"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/volume"
)

const maxMessage = 1024 // so that a driver in a loop does not fill the store

var volumeAttachments = apis.Define(apis.Resource[*storagev1.VolumeAttachment]{
	Plural: "volumeattachments",
	Scope:  apis.Cluster,

	Default: func(a *storagev1.VolumeAttachment) {
		if s := a.Spec.Source.InlineVolumeSpec; s != nil {
			meta.RoundUp(s.Capacity)
			volume.DefaultPersistent(&s.PersistentVolumeSource)
		}
	},
	Prepare:  meta.KeepStatus[*storagev1.VolumeAttachment],
	Validate: validateVolumeAttachment,
	Subs:     []apis.Sub[*storagev1.VolumeAttachment]{meta.Status(validateVolumeAttachment, meta.StatusMeta()...)},

	Columns: []apis.Column[*storagev1.VolumeAttachment]{
		{Name: "Attacher", Cell: func(a *storagev1.VolumeAttachment, _ time.Time) any { return a.Spec.Attacher }},
		{Name: "PV", Cell: func(a *storagev1.VolumeAttachment, _ time.Time) any {
			return meta.Deref(a.Spec.Source.PersistentVolumeName, "")
		}},
		{Name: "Node", Cell: func(a *storagev1.VolumeAttachment, _ time.Time) any { return a.Spec.NodeName }},
		{Name: "Attached", Type: "boolean", Cell: func(a *storagev1.VolumeAttachment, _ time.Time) any { return a.Status.Attached }},
	},
	Lifetime: apis.Lifetime[*storagev1.VolumeAttachment]{NeedsVersion: true, ReturnsDeleted: true},
})

func validateVolumeAttachment(a, old *storagev1.VolumeAttachment) field.ErrorList {
	root, s := check.New(), &a.Spec
	at := root.Dot("spec")
	volume.Driver(at.Dot("attacher"), s.Attacher)
	source(at.Dot("source"), &s.Source)
	meta.Name(at.Dot("nodeName"), s.NodeName)
	status := root.Dot("status")
	if bytes(a.Status.AttachmentMetadata) > maxBytes {
		status.Dot("attachmentMetadata").TooLong(maxBytes)
	}
	volumeError(status.Dot("attachError"), a.Status.AttachError)
	volumeError(status.Dot("detachError"), a.Status.DetachError)
	if name := s.Source.PersistentVolumeName; name != nil {
		meta.Name(at.Dot("source.persistentVolumeName"), *name)
	}
	if old != nil {
		at.SameBare(a.Spec, old.Spec)
	}
	return root.Errors()
}

func source(at check.At, s *storagev1.VolumeAttachmentSource) {
	const one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
	switch name, inline := s.PersistentVolumeName, s.InlineVolumeSpec; {
	case name == nil && inline == nil:
		at.Required(one)
	case name != nil && inline != nil:
		at.Forbidden(one)
	case inline != nil:
		spec := *inline
		spec.VolumeAttributesClassName = nil // as upstream: not looked at
		volume.Persistent{Inline: true}.Check(at.Dot("inlineVolumeSpec"), &spec)
	case *name == "":
		at.Dot("persistentVolumeName").Required("must specify non empty persistentVolumeName")
	}
}

func volumeError(at check.At, e *storagev1.VolumeError) {
	if e == nil {
		return
	}
	if len(e.Message) > maxMessage {
		at.Dot("message").TooLong(maxBytes) // as upstream: not the limit that is kept
	}
	if e.ErrorCode != nil && *e.ErrorCode < 0 {
		at.Dot("errorCode").Invalid(*e.ErrorCode, utilvalidation.InclusiveRangeError(0, math.MaxInt32))
	}
}
