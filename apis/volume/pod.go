package volume

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

// A Pod is the pod that a volume is in.
type Pod struct {
	Template     bool   // of pods to come, rather than a pod
	Name         string // empty where it is not known yet
	AnyTokenPath bool   // a token may lie anywhere, as was allowed once
}

type podVolume struct {
	corev1.Volume
	in Pod
}

// podSources are the sources of a pod's volume, in the order in which they
// are looked at.
var podSources = []source[podVolume]{
	of("emptyDir", func(v *podVolume) *corev1.EmptyDirVolumeSource { return v.EmptyDir }, emptyDir),
	of("hostPath", func(v *podVolume) *corev1.HostPathVolumeSource { return v.HostPath }, hostPath),
	of("gitRepo", func(v *podVolume) *corev1.GitRepoVolumeSource { return v.GitRepo }, gitRepo),
	of("gcePersistentDisk", func(v *podVolume) *corev1.GCEPersistentDiskVolumeSource { return v.GCEPersistentDisk }, gcePersistentDisk),
	of("awsElasticBlockStore", func(v *podVolume) *corev1.AWSElasticBlockStoreVolumeSource { return v.AWSElasticBlockStore }, awsElasticBlockStore),
	of("secret", func(v *podVolume) *corev1.SecretVolumeSource { return v.Secret }, secret),
	of("nfs", func(v *podVolume) *corev1.NFSVolumeSource { return v.NFS }, nfs),
	{name: "iscsi", set: func(v *podVolume) bool { return v.ISCSI != nil }, check: podISCSI},
	of("glusterfs", func(v *podVolume) *corev1.GlusterfsVolumeSource { return v.Glusterfs },
		need[corev1.GlusterfsVolumeSource]("glusterfs", "endpoints", "path")),
	of("flocker", func(v *podVolume) *corev1.FlockerVolumeSource { return v.Flocker }, flocker),
	of("persistentVolumeClaim", func(v *podVolume) *corev1.PersistentVolumeClaimVolumeSource { return v.PersistentVolumeClaim },
		need[corev1.PersistentVolumeClaimVolumeSource]("persistentVolumeClaim", "claimName")),
	of("rbd", func(v *podVolume) *corev1.RBDVolumeSource { return v.RBD }, need[corev1.RBDVolumeSource]("rbd", "monitors", "image")),
	of("cinder", func(v *podVolume) *corev1.CinderVolumeSource { return v.Cinder }, cinder),
	of("cephFS", func(v *podVolume) *corev1.CephFSVolumeSource { return v.CephFS }, need[corev1.CephFSVolumeSource]("cephfs", "monitors")),
	of("quobyte", func(v *podVolume) *corev1.QuobyteVolumeSource { return v.Quobyte }, quobyte),
	of("downwarAPI", func(v *podVolume) *corev1.DownwardAPIVolumeSource { return v.DownwardAPI }, downwardAPI), // as upstream spells it
	of("fc", func(v *podVolume) *corev1.FCVolumeSource { return v.FC }, fc),
	of("flexVolume", func(v *podVolume) *corev1.FlexVolumeSource { return v.FlexVolume },
		func(at check.At, s *corev1.FlexVolumeSource) { flex(at, s.Driver, s.Options) }),
	of("configMap", func(v *podVolume) *corev1.ConfigMapVolumeSource { return v.ConfigMap }, configMap),
	of("azureFile", func(v *podVolume) *corev1.AzureFileVolumeSource { return v.AzureFile },
		need[corev1.AzureFileVolumeSource]("azureFile", "secretName", "shareName")),
	of("vsphereVolume", func(v *podVolume) *corev1.VsphereVirtualDiskVolumeSource { return v.VsphereVolume },
		need[corev1.VsphereVirtualDiskVolumeSource]("vsphereVolume", "volumePath")),
	of("photonPersistentDisk", func(v *podVolume) *corev1.PhotonPersistentDiskVolumeSource { return v.PhotonPersistentDisk },
		need[corev1.PhotonPersistentDiskVolumeSource]("photonPersistentDisk", "pdID")),
	of("portworxVolume", func(v *podVolume) *corev1.PortworxVolumeSource { return v.PortworxVolume },
		need[corev1.PortworxVolumeSource]("portworxVolume", "volumeID")),
	of("azureDisk", func(v *podVolume) *corev1.AzureDiskVolumeSource { return v.AzureDisk }, azureDisk),
	of("storageos", func(v *podVolume) *corev1.StorageOSVolumeSource { return v.StorageOS }, podStorageOS),
	{name: "projected", set: func(v *podVolume) bool { return v.Projected != nil }, check: projected},
	of("scaleIO", func(v *podVolume) *corev1.ScaleIOVolumeSource { return v.ScaleIO },
		need[corev1.ScaleIOVolumeSource]("scaleIO", "gateway", "system", "volumeName")),
	of("csi", func(v *podVolume) *corev1.CSIVolumeSource { return v.CSI }, podCSI),
	{name: "ephemeral", set: func(v *podVolume) bool { return v.Ephemeral != nil }, check: ephemeral},
	{name: "image", set: func(v *podVolume) bool { return v.Image != nil }, check: image},
}

// Volumes checks the volumes of a pod, and returns those by name with which
// nothing is wrong: the ones that containers may mount.
func Volumes(at check.At, volumes []corev1.Volume, in Pod) map[string]corev1.VolumeSource {
	claims := check.Set[string]{} // those that ephemeral volumes will make
	for _, v := range volumes {
		if v.Ephemeral != nil && in.Name != "" {
			claims[in.Name+"-"+v.Name] = true
		}
	}
	good := map[string]corev1.VolumeSource{}
	for i, v := range volumes {
		at, before := at.Index(i), at.Found()
		exactlyOne(at, &podVolume{v, in}, podSources)
		if at.Dot("name").Present(v.Name) {
			at.Dot("name").Label(v.Name)
		}
		if _, twice := good[v.Name]; twice {
			at.Dot("name").Duplicate(v.Name)
		}
		if at.Found() == before {
			good[v.Name] = v.VolumeSource
		}
		if c := v.PersistentVolumeClaim; c != nil && claims[c.ClaimName] {
			at.Dot("persistentVolumeClaim.claimName").Invalid(c.ClaimName, "must not reference a PVC that gets created for an ephemeral volume")
		}
	}
	return good
}

func emptyDir(at check.At, s *corev1.EmptyDirVolumeSource) {
	if s.SizeLimit != nil && s.SizeLimit.Sign() < 0 {
		at.Dot("emptyDir.sizeLimit").Forbidden("SizeLimit field must be a valid resource quantity")
	}
}

func gitRepo(at check.At, s *corev1.GitRepoVolumeSource) {
	at.Dot("gitRepo.repository").Present(s.Repository)
	Inside(at.Dot("gitRepo.directory"), s.Directory)
}

func secret(at check.At, s *corev1.SecretVolumeSource) {
	at.Dot("secret.secretName").Present(s.SecretName)
	mode(at.Dot("secret.defaultMode"), s.DefaultMode)
	keys(at.Dot("secret.items"), s.Items)
}

func configMap(at check.At, s *corev1.ConfigMapVolumeSource) {
	at.Dot("configMap.name").Present(s.Name)
	mode(at.Dot("configMap.defaultMode"), s.DefaultMode)
	keys(at.Dot("configMap.items"), s.Items)
}

func keys(at check.At, items []corev1.KeyToPath) {
	for i := range items {
		key(at.Index(i), &items[i])
	}
}

func key(at check.At, k *corev1.KeyToPath) {
	at.Dot("key").Present(k.Key)
	at.Dot("path").Present(k.Path)
	File(at.Dot("path"), k.Path)
	mode(at.Dot("mode"), k.Mode)
}

func podISCSI(at check.At, v *podVolume) {
	s, volume, at := v.ISCSI, at, at.Dot("iscsi")
	iscsi{
		s.TargetPortal, s.IQN, s.Lun, s.DiscoveryCHAPAuth || s.SessionCHAPAuth, s.SecretRef != nil, s.InitiatorName,
		"must be valid format starting with iqn, eui, or naa",
	}.check(at, func(check.At) {})
	if s.InitiatorName != nil && len(v.Name+":"+s.TargetPortal) > 64 {
		volume.Dot("name").Invalid(v.Name,
			"Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.")
	}
}

func cinder(at check.At, s *corev1.CinderVolumeSource) {
	at.Dot("cinder.volumeID").Present(s.VolumeID)
	if s.SecretRef != nil {
		at.Dot("cinder.secretRef.name").Present(s.SecretRef.Name)
	}
}

func podStorageOS(at check.At, s *corev1.StorageOSVolumeSource) {
	storageOS(at.Dot("storageos"), s.VolumeName, s.VolumeNamespace)
	if s.SecretRef != nil {
		at.Dot("storageos.secretRef.name").Present(s.SecretRef.Name)
	}
}

func podCSI(at check.At, s *corev1.CSIVolumeSource) {
	at = at.Dot("csi")
	Driver(at.Dot("driver"), s.Driver)
	if ref := s.NodePublishSecretRef; ref != nil && at.Dot("nodePublishSecretRef.name").Present(ref.Name) {
		meta.Name(at.Dot("name"), ref.Name) // as upstream: not the field's name
	}
}

func ephemeral(at check.At, v *podVolume) {
	if v.Ephemeral.VolumeClaimTemplate == nil {
		at.Dot("ephemeral.volumeClaimTemplate").Required("")
	} else {
		ClaimTemplate(at.Dot("ephemeral.volumeClaimTemplate"), v.Ephemeral.VolumeClaimTemplate)
	}
	if v.in.Name == "" || v.Name == "" {
		return
	}
	claim := v.in.Name + "-" + v.Name
	for _, wrong := range validation.NameIsDNSSubdomain(claim, false) {
		at.Dot("name").Invalid(v.Name, fmt.Sprintf("PVC name %q: %v", claim, wrong))
	}
}

func image(at check.At, v *podVolume) {
	if !v.in.Template {
		at.Dot("image.reference").Present(v.Image.Reference)
	}
	PullPolicy(at.Dot("image.pullPolicy"), v.Image.PullPolicy)
}

// PullPolicy demands to be told when to pull an image.
func PullPolicy(at check.At, p corev1.PullPolicy) {
	check.Choice(at, p, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
}
