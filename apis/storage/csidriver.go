package storage

import (
	"cmp"
	"strings"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

var csiDrivers = apis.Define(apis.Resource[*storagev1.CSIDriver]{
	Plural: "csidrivers",
	Scope:  apis.Cluster,

	Default:  defaultCSIDriver,
	Prepare:  prepareCSIDriver,
	Validate: validateCSIDriver,
	Warn:     warnCSIDriver,
	Spec:     func(d *storagev1.CSIDriver) any { return &d.Spec },

	Columns: []apis.Column[*storagev1.CSIDriver]{
		{Name: "AttachRequired", Type: "boolean", Cell: func(d *storagev1.CSIDriver, _ time.Time) any { return meta.Deref(d.Spec.AttachRequired, true) }},
		{Name: "PodInfoOnMount", Type: "boolean", Cell: func(d *storagev1.CSIDriver, _ time.Time) any { return meta.Deref(d.Spec.PodInfoOnMount, false) }},
		{Name: "StorageCapacity", Type: "boolean", Cell: func(d *storagev1.CSIDriver, _ time.Time) any { return meta.Deref(d.Spec.StorageCapacity, false) }},
		{Name: "TokenRequests", Cell: func(d *storagev1.CSIDriver, _ time.Time) any { return printTokens(d.Spec.TokenRequests) }},
		{Name: "RequiresRepublish", Type: "boolean", Cell: func(d *storagev1.CSIDriver, _ time.Time) any { return meta.Deref(d.Spec.RequiresRepublish, false) }},
		{Name: "Modes", Cell: func(d *storagev1.CSIDriver, _ time.Time) any {
			modes := make([]string, len(d.Spec.VolumeLifecycleModes))
			for i, m := range d.Spec.VolumeLifecycleModes {
				modes[i] = string(m)
			}
			return meta.Or(strings.Join(modes, ","), "<none>")
		}},
	},
	Lifetime: apis.Lifetime[*storagev1.CSIDriver]{NeedsVersion: true, ReturnsDeleted: true},
})

func printTokens(requests []storagev1.TokenRequest) string {
	if requests == nil {
		return "<unset>"
	}
	audiences := make([]string, len(requests))
	for i, r := range requests {
		audiences[i] = r.Audience
	}
	return strings.Join(audiences, ",")
}

func defaultCSIDriver(d *storagev1.CSIDriver) {
	s := &d.Spec
	s.AttachRequired = cmp.Or(s.AttachRequired, new(true))
	s.PodInfoOnMount = cmp.Or(s.PodInfoOnMount, new(false))
	s.StorageCapacity = cmp.Or(s.StorageCapacity, new(false))
	s.FSGroupPolicy = cmp.Or(s.FSGroupPolicy, new(storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy))
	if len(s.VolumeLifecycleModes) == 0 {
		s.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	}
	s.RequiresRepublish = cmp.Or(s.RequiresRepublish, new(false))
	s.SELinuxMount = cmp.Or(s.SELinuxMount, new(false))
}

// prepareCSIDriver drops what nothing heeds. As upstream: generations are
// counted from the first change on.
func prepareCSIDriver(d, old *storagev1.CSIDriver) {
	if old == nil {
		d.Generation = 0
	}
	if old == nil || old.Spec.PreventPodSchedulingIfMissing == nil {
		d.Spec.PreventPodSchedulingIfMissing = nil
	}
}

func validateCSIDriver(d, old *storagev1.CSIDriver) field.ErrorList {
	root, s := check.New(), &d.Spec
	at := root.Dot("spec")
	required := func(name string, flag *bool) {
		if flag == nil {
			at.Dot(name).Required("")
		}
	}
	required("attachedRequired", s.AttachRequired) // as upstream: not the field's name
	required("podInfoOnMount", s.PodInfoOnMount)
	required("storageCapacity", s.StorageCapacity)
	if s.FSGroupPolicy != nil {
		check.OneOf(at.Dot("fsGroupPolicy"), *s.FSGroupPolicy,
			storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy, storagev1.FileFSGroupPolicy, storagev1.NoneFSGroupPolicy)
	}
	tokens(at.Dot("tokenRequests"), s.TokenRequests)
	for _, m := range s.VolumeLifecycleModes {
		check.Listed(at.Dot("volumeLifecycleModes"), m, storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral)
	}
	required("seLinuxMount", s.SELinuxMount)
	if period := s.NodeAllocatableUpdatePeriodSeconds; period != nil && *period < 10 {
		at.Dot("nodeAllocatableUpdatePeriodSeconds").Invalid(*period, "must be greater than or equal to 10 seconds")
	}
	if secrets := s.ServiceAccountTokenInSecrets; secrets != nil && len(s.TokenRequests) == 0 {
		at.Dot("serviceAccountTokenInSecrets").Invalid(*secrets, "serviceAccountTokenInSecrets is set but no tokenRequests are specified")
	}
	if old != nil {
		at.Dot("attachedRequired").Same(s.AttachRequired, old.Spec.AttachRequired)
		at.Dot("volumeLifecycleModes").Same(s.VolumeLifecycleModes, old.Spec.VolumeLifecycleModes)
	}
	return root.Errors()
}

// tokens checks the tokens of pods that a driver is given, one an audience.
func tokens(at check.At, requests []storagev1.TokenRequest) {
	const shortest, longest = 600, 1 << 32
	audiences := check.Set[string]{}
	for i, r := range requests {
		at := at.Index(i)
		if audiences.Twice(r.Audience) {
			at.Dot("audience").Duplicate(r.Audience)
			continue
		}
		seconds := meta.Deref(r.ExpirationSeconds, shortest)
		if seconds < shortest {
			at.Dot("expirationSeconds").Invalid(seconds, "may not specify a duration less than 10 minutes")
		}
		if seconds > longest {
			at.Dot("expirationSeconds").Invalid(seconds, "may not specify a duration larger than 2^32 seconds")
		}
	}
}

func warnCSIDriver(d, old *storagev1.CSIDriver) []string {
	requests := d.Spec.TokenRequests
	if len(requests) == 0 || d.Spec.ServiceAccountTokenInSecrets != nil || old != nil && equality.Semantic.DeepEqual(requests, old.Spec.TokenRequests) {
		return nil
	}
	return []string{"spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes"}
}
