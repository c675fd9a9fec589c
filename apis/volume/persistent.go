package volume

import (
	"path"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

type persistent struct {
	*corev1.PersistentVolumeSpec
	in Persistent
}

// persistentSources are the sources of a persistent volume, in the order in
// which they are looked at.
var persistentSources = []source[persistent]{
	of("hostPath", func(v *persistent) *corev1.HostPathVolumeSource { return v.HostPath }, hostPath),
	of("gcePersistentDisk", func(v *persistent) *corev1.GCEPersistentDiskVolumeSource { return v.GCEPersistentDisk }, gcePersistentDisk),
	of("awsElasticBlockStore", func(v *persistent) *corev1.AWSElasticBlockStoreVolumeSource { return v.AWSElasticBlockStore }, awsElasticBlockStore),
	of("glusterfs", func(v *persistent) *corev1.GlusterfsPersistentVolumeSource { return v.Glusterfs },
		then(need[corev1.GlusterfsPersistentVolumeSource]("glusterfs", "endpoints", "path"), glusterfsNamespace)),
	of("flocker", func(v *persistent) *corev1.FlockerVolumeSource { return v.Flocker }, flocker),
	of("nfs", func(v *persistent) *corev1.NFSVolumeSource { return v.NFS }, nfs),
	of("rbd", func(v *persistent) *corev1.RBDPersistentVolumeSource { return v.RBD },
		need[corev1.RBDPersistentVolumeSource]("rbd", "monitors", "image")),
	of("quobyte", func(v *persistent) *corev1.QuobyteVolumeSource { return v.Quobyte }, quobyte),
	of("cephFS", func(v *persistent) *corev1.CephFSPersistentVolumeSource { return v.CephFS },
		need[corev1.CephFSPersistentVolumeSource]("cephfs", "monitors")),
	{name: "iscsi", set: func(v *persistent) bool { return v.ISCSI != nil }, check: persistentISCSI},
	of("cinder", func(v *persistent) *corev1.CinderPersistentVolumeSource { return v.Cinder }, persistentCinder),
	of("fc", func(v *persistent) *corev1.FCVolumeSource { return v.FC }, fc),
	{
		name: "flexVolume", also: true, // as upstream
		set:   func(v *persistent) bool { return v.FlexVolume != nil },
		check: func(at check.At, v *persistent) { flex(at, v.FlexVolume.Driver, v.FlexVolume.Options) },
	},
	of("azureFile", func(v *persistent) *corev1.AzureFilePersistentVolumeSource { return v.AzureFile },
		then(need[corev1.AzureFilePersistentVolumeSource]("azureFile", "secretName", "shareName"), azureFileNamespace)),
	of("vsphereVolume", func(v *persistent) *corev1.VsphereVirtualDiskVolumeSource { return v.VsphereVolume },
		need[corev1.VsphereVirtualDiskVolumeSource]("vsphereVolume", "volumePath")),
	of("photonPersistentDisk", func(v *persistent) *corev1.PhotonPersistentDiskVolumeSource { return v.PhotonPersistentDisk },
		need[corev1.PhotonPersistentDiskVolumeSource]("photonPersistentDisk", "pdID")),
	of("portworxVolume", func(v *persistent) *corev1.PortworxVolumeSource { return v.PortworxVolume },
		need[corev1.PortworxVolumeSource]("portworxVolume", "volumeID")),
	of("azureDisk", func(v *persistent) *corev1.AzureDiskVolumeSource { return v.AzureDisk }, azureDisk),
	of("scaleIO", func(v *persistent) *corev1.ScaleIOPersistentVolumeSource { return v.ScaleIO },
		need[corev1.ScaleIOPersistentVolumeSource]("scaleIO", "gateway", "system", "volumeName")),
	{name: "local", set: func(v *persistent) bool { return v.Local != nil }, check: local},
	of("storageos", func(v *persistent) *corev1.StorageOSPersistentVolumeSource { return v.StorageOS }, persistentStorageOS),
	of("csi", func(v *persistent) *corev1.CSIPersistentVolumeSource { return v.CSI }, persistentCSI),
}

// Persistent is where the spec of a persistent volume stands.
type Persistent struct {
	Name      string // of the volume
	Inline    bool   // in something else, of a volume that there is not
	AnyValues bool   // the node affinity may have values that no label has
}

const (
	inline        = "may not be specified in the context of inline volumes"
	inlineContext = " in the context of inline volumes"
)

// Check checks the spec.
func (p Persistent) Check(at check.At, s *corev1.PersistentVolumeSpec) {
	if p.Inline {
		if s.ClaimRef != nil {
			at.Dot("claimRef").Forbidden(inline)
		}
		if len(s.Capacity) > 0 {
			at.Dot("capacity").Forbidden(inline)
		}
		if s.CSI == nil {
			at.Dot("csi").Required("has to be specified" + inlineContext)
		}
	}
	if len(s.AccessModes) == 0 {
		at.Dot("accessModes").Required("")
	}
	AccessModes(at.Dot("accessModes"), s.AccessModes)
	policy := at.Dot("persistentVolumeReclaimPolicy")
	if p.Inline {
		p.inlineOnly(at, s)
	} else {
		p.own(at, s, policy)
	}
	exactlyOne(at, &persistent{s, p}, persistentSources)
	if s.HostPath != nil && path.Clean(s.HostPath.Path) == "/" && s.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		policy.Forbidden("may not be 'recycle' for a hostPath mount of '/'")
	}
	p.classes(at, s)
}

func (p Persistent) inlineOnly(at check.At, s *corev1.PersistentVolumeSpec) {
	if policy := s.PersistentVolumeReclaimPolicy; policy != "" && policy != corev1.PersistentVolumeReclaimRetain {
		at.Dot("persistentVolumeReclaimPolicy").Forbidden("may only be Retain" + inlineContext)
	}
	if s.NodeAffinity != nil {
		at.Dot("nodeAffinity").Forbidden(inline)
	}
}

func (p Persistent) own(at check.At, s *corev1.PersistentVolumeSpec, policy check.At) {
	capacity := at.Dot("capacity")
	if len(s.Capacity) == 0 {
		capacity.Required("")
	}
	if _, ok := s.Capacity[corev1.ResourceStorage]; !ok || len(s.Capacity) > 1 {
		capacity.Add(field.NotSupported(capacity.Path(), s.Capacity, []corev1.ResourceName{corev1.ResourceStorage}))
	}
	for name, size := range check.Sorted(s.Capacity) {
		meta.BasicQuantity(capacity.Key(string(name)), size)
		meta.PositiveQuantity(capacity.Key(string(name)), size)
	}
	if s.PersistentVolumeReclaimPolicy != "" {
		check.OneOf(policy, s.PersistentVolumeReclaimPolicy,
			corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRecycle, corev1.PersistentVolumeReclaimRetain)
	}
	if s.NodeAffinity == nil {
		return
	}
	if at := at.Dot("nodeAffinity.required"); s.NodeAffinity.Required == nil {
		at.Required("must specify required node constraints")
	} else {
		meta.NodeSelector(at, s.NodeAffinity.Required, p.AnyValues)
	}
}

func (p Persistent) classes(at check.At, s *corev1.PersistentVolumeSpec) {
	if at := at.Dot("storageClassName"); s.StorageClassName != "" {
		if p.Inline {
			at.Forbidden(inline)
		} else {
			meta.Name(at, s.StorageClassName)
		}
	}
	if at := at.Dot("volumeMode"); s.VolumeMode != nil {
		if !p.Inline {
			Mode(at, *s.VolumeMode)
		} else if *s.VolumeMode != corev1.PersistentVolumeFilesystem {
			at.Forbidden("may not specify volumeMode other than Filesystem" + inlineContext)
		}
	}
	if class := s.VolumeAttributesClassName; class != nil {
		if at := at.Dot("volumeAttributesClassName"); *class == "" {
			at.Required("an empty string is disallowed")
		} else {
			meta.Name(at, *class)
		}
		if s.CSI == nil {
			at.Dot("csi").Required("has to be specified when using volumeAttributesClassName")
		}
	}
}

func glusterfsNamespace(at check.At, s *corev1.GlusterfsPersistentVolumeSource) {
	if s.EndpointsNamespace == nil {
		return
	}
	if at := at.Dot("glusterfs.endpointsNamespace"); *s.EndpointsNamespace == "" {
		at.Invalid("", "if the endpointnamespace is set, it must be a valid namespace name")
	} else {
		meta.Namespace(at, *s.EndpointsNamespace)
	}
}

func azureFileNamespace(at check.At, s *corev1.AzureFilePersistentVolumeSource) {
	if s.SecretNamespace != nil {
		at.Dot("azureFile.secretNamespace").Present(*s.SecretNamespace)
	}
}

func persistentISCSI(at check.At, v *persistent) {
	s, at := v.ISCSI, at.Dot("iscsi")
	if s.InitiatorName != nil && len(v.in.Name+":"+s.TargetPortal) > 64 {
		at.Dot("targetportal").Invalid(s.TargetPortal,
			"Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.")
	}
	iscsi{
		s.TargetPortal, s.IQN, s.Lun, s.DiscoveryCHAPAuth || s.SessionCHAPAuth, s.SecretRef != nil, s.InitiatorName, "must be valid format",
	}.check(at, func(at check.At) {
		if s.SecretRef != nil {
			at.Dot("secretRef.name").Present(s.SecretRef.Name)
		}
	})
}

func persistentCinder(at check.At, s *corev1.CinderPersistentVolumeSource) {
	at.Dot("cinder.volumeID").Present(s.VolumeID)
	if s.SecretRef != nil {
		at.Dot("cinder.secretRef.name").Present(s.SecretRef.Name)
		at.Dot("cinder.secretRef.namespace").Present(s.SecretRef.Namespace)
	}
}

func local(at check.At, v *persistent) {
	if at := at.Dot("local.path"); at.Present(v.Local.Path) {
		noBacksteps(at, v.Local.Path)
	}
	if v.NodeAffinity == nil || v.in.Inline {
		at.Dot("nodeAffinity").Required("Local volume requires node affinity")
	}
}

func persistentStorageOS(at check.At, s *corev1.StorageOSPersistentVolumeSource) {
	storageOS(at.Dot("storageos"), s.VolumeName, s.VolumeNamespace)
	if s.SecretRef != nil {
		at.Dot("storageos.secretRef.name").Present(s.SecretRef.Name)
		at.Dot("storageos.secretRef.namespace").Present(s.SecretRef.Namespace)
	}
}

func persistentCSI(at check.At, s *corev1.CSIPersistentVolumeSource) {
	at = at.Dot("csi")
	Driver(at.Dot("driver"), s.Driver)
	at.Dot("volumeHandle").Present(s.VolumeHandle)
	secret := func(at check.At, ref *corev1.SecretReference) {
		if ref == nil {
			return
		}
		if at.Dot("name").Present(ref.Name) {
			at.Dot("name").Subdomain(ref.Name)
		}
		if at.Dot("namespace").Present(ref.Namespace) {
			at.Dot("namespace").Label(ref.Namespace)
		}
	}
	secret(at.Dot("controllerPublishSecretRef"), s.ControllerPublishSecretRef)
	secret(at.Dot("controllerExpandSecretRef"), s.ControllerExpandSecretRef)
	secret(at.Dot("nodePublishSecretRef"), s.NodePublishSecretRef)
	secret(at.Dot("nodeExpandSecretRef"), s.NodeExpandSecretRef)
}
