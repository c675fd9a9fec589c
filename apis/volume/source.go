package volume

import (
	"net"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"

	"github.com/knarr-dev/knarr/apis/check"
)

// What follows are the rules for the fields that volumes of pods and
// persistent volumes have in common, of the same type or of two that differ
// in whose secret they name.

func hostPath(at check.At, s *corev1.HostPathVolumeSource) {
	at = at.Dot("hostPath")
	if !at.Dot("path").Present(s.Path) {
		return
	}
	noBacksteps(at.Dot("path"), s.Path)
	if s.Type != nil {
		check.OneOf(at.Dot("type"), *s.Type,
			corev1.HostPathUnset, corev1.HostPathDirectoryOrCreate, corev1.HostPathDirectory, corev1.HostPathFileOrCreate,
			corev1.HostPathFile, corev1.HostPathSocket, corev1.HostPathCharDev, corev1.HostPathBlockDev)
	}
}

func gcePersistentDisk(at check.At, s *corev1.GCEPersistentDiskVolumeSource) {
	at = at.Dot("persistentDisk") // as upstream: not the field's name
	at.Dot("pdName").Present(s.PDName)
	partition(at.Dot("partition"), s.Partition)
}

func awsElasticBlockStore(at check.At, s *corev1.AWSElasticBlockStoreVolumeSource) {
	at = at.Dot("awsElasticBlockStore")
	at.Dot("volumeID").Present(s.VolumeID)
	partition(at.Dot("partition"), s.Partition)
}

func partition(at check.At, n int32) {
	if n < 0 || n > 255 {
		at.Invalid(n, utilvalidation.InclusiveRangeError(1, 255))
	}
}

func nfs(at check.At, s *corev1.NFSVolumeSource) {
	at = at.Dot("nfs")
	at.Dot("server").Present(s.Server)
	at.Dot("path").Present(s.Path)
	if !strings.HasPrefix(s.Path, "/") {
		at.Dot("path").Invalid(s.Path, "must be an absolute path")
	}
}

func flocker(at check.At, s *corev1.FlockerVolumeSource) {
	at = at.Dot("flocker")
	if s.DatasetName == "" && s.DatasetUUID == "" {
		at.Required("one of datasetName and datasetUUID is required")
	}
	if s.DatasetName != "" && s.DatasetUUID != "" {
		at.Invalid("resource", "datasetName and datasetUUID can not be specified simultaneously")
	}
	if strings.Contains(s.DatasetName, "/") {
		at.Dot("datasetName").Invalid(s.DatasetName, "must not contain '/'")
	}
}

func quobyte(at check.At, s *corev1.QuobyteVolumeSource) {
	const pairs = "must be a host:port pair or multiple pairs separated by commas"
	at = at.Dot("quobyte")
	switch registry := at.Dot("registry"); {
	case s.Registry == "":
		registry.Required(pairs)
	case len(s.Tenant) > 64:
		at.Dot("tenant").Required("must be a UUID and may not exceed a length of 64 characters")
	default:
		for pair := range strings.SplitSeq(s.Registry, ",") {
			if _, _, err := net.SplitHostPort(pair); err != nil {
				registry.Invalid(s.Registry, pairs)
			}
		}
	}
	at.Dot("volume").Present(s.Volume)
}

func fc(at check.At, s *corev1.FCVolumeSource) {
	names := at.Dot("fc.targetWWNs")
	switch {
	case len(s.TargetWWNs) == 0 && len(s.WWIDs) == 0:
		names.Required("must specify either targetWWNs or wwids, but not both")
	case len(s.TargetWWNs) > 0 && len(s.WWIDs) > 0:
		names.Invalid(s.TargetWWNs, "targetWWNs and wwids can not be specified simultaneously")
	}
	if len(s.TargetWWNs) == 0 {
		return
	}
	if s.Lun == nil {
		at.Dot("fc.lun").Required("lun is required if targetWWNs is specified")
	} else {
		check.Range(at.Dot("fc.lun"), *s.Lun, 0, 255)
	}
}

// flex demands a driver, and options outside of the system's own domains.
func flex(at check.At, driver string, options map[string]string) {
	at = at.Dot("flexVolume")
	at.Dot("driver").Present(driver)
	for key := range check.Sorted(options) {
		domain, _, _ := strings.Cut(key, "/")
		domain = "." + strings.ToLower(domain)
		if strings.HasSuffix(domain, ".kubernetes.io") || strings.HasSuffix(domain, ".k8s.io") {
			at.Dot("options").Key(key).Invalid(key, "kubernetes.io and k8s.io namespaces are reserved")
		}
	}
}

func azureDisk(at check.At, s *corev1.AzureDiskVolumeSource) {
	at = at.Dot("azureDisk")
	at.Dot("diskName").Present(s.DiskName)
	at.Dot("diskURI").Present(s.DataDiskURI)
	if s.CachingMode != nil {
		check.OneOf(at.Dot("cachingMode"), *s.CachingMode,
			corev1.AzureDataDiskCachingNone, corev1.AzureDataDiskCachingReadOnly, corev1.AzureDataDiskCachingReadWrite)
	}
	if s.Kind == nil {
		return
	}
	check.OneOf(at.Dot("kind"), *s.Kind, corev1.AzureSharedBlobDisk, corev1.AzureDedicatedBlobDisk, corev1.AzureManagedDisk)
	prefix, form := "https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
	if *s.Kind == corev1.AzureManagedDisk {
		prefix = "/subscriptions/"
		form = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
	}
	if !strings.HasPrefix(s.DataDiskURI, prefix) {
		check.Listed(at.Dot("diskURI"), s.DataDiskURI, form)
	}
}

// storageOS demands names; that of a volume is required.
func storageOS(at check.At, name, namespace string) {
	if at.Dot("volumeName").Present(name) {
		at.Dot("volumeName").Label(name)
	}
	if namespace != "" {
		at.Dot("volumeNamespace").Label(namespace)
	}
}

// initiators are the forms that the name of an iSCSI initiator may have, by their beginning.
var initiators = map[string]*regexp.Regexp{
	"iqn": regexp.MustCompile(`iqn\.\d{4}-\d{2}\.([[:alnum:]-.]+)(:[^,;*&$|\s]+)$`),
	"eui": regexp.MustCompile(`^eui.[[:alnum:]]{16}$`),
	"naa": regexp.MustCompile(`^naa.[[:alnum:]]{32}$`),
}

// iscsi is what both types of iSCSI source have.
type iscsi struct {
	portal, iqn string
	lun         int32
	chap        bool
	hasSecret   bool
	initiator   *string
	unknown     string // what to say of an unknown form
}

func (s iscsi) check(at check.At, secret func(at check.At)) {
	at.Dot("targetPortal").Present(s.portal)
	if at.Dot("iqn").Present(s.iqn) {
		s.name(at.Dot("iqn"), s.iqn)
	}
	check.Range(at.Dot("lun"), s.lun, 0, 255)
	if s.chap && !s.hasSecret {
		at.Dot("secretRef").Required("")
	}
	secret(at)
	if s.initiator != nil {
		s.name(at.Dot("initiatorname"), *s.initiator)
	}
}

func (s iscsi) name(at check.At, name string) {
	if form := initiators[name[:min(3, len(name))]]; form == nil {
		at.Invalid(name, s.unknown)
	} else if !form.MatchString(name) {
		at.Invalid(name, "must be valid format")
	}
}

// Driver demands the name of a CSI driver.
func Driver(at check.At, name string) {
	if !at.Present(name) {
		return
	}
	if len(name) > 63 {
		at.TooLong(63)
	}
	at.Wrong(name, utilvalidation.IsDNS1123Subdomain(strings.ToLower(name)))
}
