package volume

import (
	"cmp"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis/meta"
)

// DefaultSource fills a volume of a pod.
func DefaultSource(v *corev1.VolumeSource) {
	defaultHostPath(v.HostPath)
	defaultAzureDisk(v.AzureDisk)
	if s := v.Secret; s != nil {
		s.DefaultMode = cmp.Or(s.DefaultMode, new(corev1.SecretVolumeSourceDefaultMode))
	}
	if s := v.ConfigMap; s != nil {
		s.DefaultMode = cmp.Or(s.DefaultMode, new(corev1.ConfigMapVolumeSourceDefaultMode))
	}
	if s := v.ISCSI; s != nil {
		s.ISCSIInterface = cmp.Or(s.ISCSIInterface, "default")
	}
	if s := v.RBD; s != nil {
		defaultRBD(&s.RBDPool, &s.RadosUser, &s.Keyring)
	}
	if s := v.ScaleIO; s != nil {
		s.StorageMode = cmp.Or(s.StorageMode, "ThinProvisioned")
		s.FSType = cmp.Or(s.FSType, "xfs")
	}
	if s := v.DownwardAPI; s != nil {
		s.DefaultMode = cmp.Or(s.DefaultMode, new(corev1.DownwardAPIVolumeSourceDefaultMode))
		defaultFiles(s.Items)
	}
	if s := v.Projected; s != nil {
		s.DefaultMode = cmp.Or(s.DefaultMode, new(corev1.ProjectedVolumeSourceDefaultMode))
		for _, from := range s.Sources {
			if from.DownwardAPI != nil {
				defaultFiles(from.DownwardAPI.Items)
			}
			if t := from.ServiceAccountToken; t != nil {
				t.ExpirationSeconds = cmp.Or(t.ExpirationSeconds, new(int64(3600)))
			}
		}
	}
	if v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil {
		DefaultClaimSpec(&v.Ephemeral.VolumeClaimTemplate.Spec)
	}
}

// DefaultPersistent fills the source of a persistent volume.
func DefaultPersistent(v *corev1.PersistentVolumeSource) {
	defaultHostPath(v.HostPath)
	defaultAzureDisk(v.AzureDisk)
	if s := v.ISCSI; s != nil {
		s.ISCSIInterface = cmp.Or(s.ISCSIInterface, "default")
	}
	if s := v.RBD; s != nil {
		defaultRBD(&s.RBDPool, &s.RadosUser, &s.Keyring)
	}
	if s := v.ScaleIO; s != nil {
		s.StorageMode = cmp.Or(s.StorageMode, "ThinProvisioned")
		s.FSType = cmp.Or(s.FSType, "xfs")
	}
}

// DefaultClaim fills a claim.
func DefaultClaim(c *corev1.PersistentVolumeClaim) {
	c.Status.Phase = cmp.Or(c.Status.Phase, corev1.ClaimPending)
	DefaultClaimSpec(&c.Spec)
	meta.RoundUp(c.Status.Capacity)
	meta.RoundUp(c.Status.AllocatedResources)
}

// DefaultClaimSpec fills the spec of a claim.
func DefaultClaimSpec(c *corev1.PersistentVolumeClaimSpec) {
	c.VolumeMode = cmp.Or(c.VolumeMode, new(corev1.PersistentVolumeFilesystem))
	meta.RoundUp(c.Resources.Limits)
	meta.RoundUp(c.Resources.Requests)
}

// DefaultFieldRef fills a reference to a field of the pod; nil is none.
func DefaultFieldRef(r *corev1.ObjectFieldSelector) {
	if r != nil {
		r.APIVersion = cmp.Or(r.APIVersion, "v1")
	}
}

func defaultFiles(files []corev1.DownwardAPIVolumeFile) {
	for i := range files {
		DefaultFieldRef(files[i].FieldRef)
	}
}

func defaultHostPath(s *corev1.HostPathVolumeSource) {
	if s != nil {
		s.Type = cmp.Or(s.Type, new(corev1.HostPathUnset))
	}
}

func defaultAzureDisk(s *corev1.AzureDiskVolumeSource) {
	if s != nil {
		s.CachingMode = cmp.Or(s.CachingMode, new(corev1.AzureDataDiskCachingReadWrite))
		s.FSType = cmp.Or(s.FSType, new("ext4"))
		s.ReadOnly = cmp.Or(s.ReadOnly, new(false))
		s.Kind = cmp.Or(s.Kind, new(corev1.AzureSharedBlobDisk))
	}
}

func defaultRBD(pool, user, keyring *string) {
	*pool = cmp.Or(*pool, "rbd")
	*user = cmp.Or(*user, "admin")
	*keyring = cmp.Or(*keyring, "/etc/ceph/keyring")
}
