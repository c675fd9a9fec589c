package core

import (
	"cmp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/volume"
)

var persistentVolumes = apis.Define(apis.Resource[*corev1.PersistentVolume]{
	Plural:   "persistentvolumes",
	Short:    []string{"pv"},
	Scope:    apis.Cluster,
	Default:  defaultVolume,
	Prepare:  prepareVolume,
	Validate: validateVolume,
	Warn:     func(v, _ *corev1.PersistentVolume) []string { return warnVolume(v) },
	Subs: []apis.Sub[*corev1.PersistentVolume]{func() apis.Sub[*corev1.PersistentVolume] {
		s := meta.Status(func(_, _ *corev1.PersistentVolume) field.ErrorList { return nil })
		s.Stamp = stampVolume
		return s
	}()},
	Fields: map[string]func(*corev1.PersistentVolume) string{
		"name": func(v *corev1.PersistentVolume) string { return v.Name },
	},
	Columns: []apis.Column[*corev1.PersistentVolume]{
		{Name: "Capacity", Cell: func(v *corev1.PersistentVolume, _ time.Time) any { return v.Spec.Capacity.Storage().String() }},
		{Name: "Access Modes", Cell: func(v *corev1.PersistentVolume, _ time.Time) any { return accessModes(v.Spec.AccessModes) }},
		{Name: "Reclaim Policy", Cell: func(v *corev1.PersistentVolume, _ time.Time) any {
			return string(v.Spec.PersistentVolumeReclaimPolicy)
		}},
		{Name: "Status", Cell: func(v *corev1.PersistentVolume, _ time.Time) any { return phase(v, v.Status.Phase) }},
		{Name: "Claim", Cell: func(v *corev1.PersistentVolume, _ time.Time) any {
			if ref := v.Spec.ClaimRef; ref != nil {
				return ref.Namespace + "/" + ref.Name
			}
			return ""
		}},
		{Name: "StorageClass", Cell: func(v *corev1.PersistentVolume, _ time.Time) any {
			return storageClass(v, &v.Spec.StorageClassName)
		}},
		{Name: "VolumeAttributesClass", Cell: func(v *corev1.PersistentVolume, _ time.Time) any {
			return meta.Deref(v.Spec.VolumeAttributesClassName, "<unset>")
		}},
		{Name: "Reason", Cell: func(v *corev1.PersistentVolume, _ time.Time) any { return v.Status.Reason }},
		{Name: "VolumeMode", Wide: true, Cell: func(v *corev1.PersistentVolume, _ time.Time) any {
			return string(meta.Deref(v.Spec.VolumeMode, "<unset>"))
		}},
	},
	Lifetime: apis.Lifetime[*corev1.PersistentVolume]{ReturnsDeleted: true},
})

func accessModes(modes []corev1.PersistentVolumeAccessMode) string {
	var short []string
	for _, m := range []struct {
		mode corev1.PersistentVolumeAccessMode
		name string
	}{
		{corev1.ReadWriteOnce, "RWO"}, {corev1.ReadOnlyMany, "ROX"}, {corev1.ReadWriteMany, "RWX"}, {corev1.ReadWriteOncePod, "RWOP"},
	} {
		if slices.Contains(modes, m.mode) {
			short = append(short, m.name)
		}
	}
	return strings.Join(short, ",")
}

// phase is how the phase of an object prints, which one that is to go has not.
func phase[S ~string](obj metav1.Object, phase S) string {
	if obj.GetDeletionTimestamp() != nil {
		return "Terminating"
	}
	return string(phase)
}

// storageClass is the class that an object names, in its annotation or its field.
func storageClass(obj metav1.Object, named *string) string {
	if class, ok := obj.GetAnnotations()[corev1.BetaStorageClassAnnotation]; ok {
		return class
	}
	return meta.Deref(named, "")
}

func defaultVolume(v *corev1.PersistentVolume) {
	v.Status.Phase = cmp.Or(v.Status.Phase, corev1.VolumePending)
	v.Spec.PersistentVolumeReclaimPolicy = cmp.Or(v.Spec.PersistentVolumeReclaimPolicy, corev1.PersistentVolumeReclaimRetain)
	v.Spec.VolumeMode = cmp.Or(v.Spec.VolumeMode, new(corev1.PersistentVolumeFilesystem))
	volume.DefaultPersistent(&v.Spec.PersistentVolumeSource)
	meta.RoundUp(v.Spec.Capacity)
}

func prepareVolume(v, old *corev1.PersistentVolume) {
	meta.KeepStatus(v, old)
	if old == nil {
		v.Status = corev1.PersistentVolumeStatus{Phase: corev1.VolumePending, LastPhaseTransitionTime: &v.CreationTimestamp}
	}
}

// stampVolume notes when the phase changed, unless the client does.
func stampVolume(v, old *corev1.PersistentVolume, now metav1.Time) {
	at, was := &v.Status.LastPhaseTransitionTime, old.Status.LastPhaseTransitionTime
	switch changed := v.Status.Phase != old.Status.Phase; {
	case !changed && *at == nil:
		*at = was
	case changed && (*at == nil || (*at).Equal(was)):
		*at = &now
	}
}

func validateVolume(v, old *corev1.PersistentVolume) field.ErrorList {
	at := check.New()
	in := volume.Persistent{Name: v.Name}
	if old != nil && old.Spec.NodeAffinity != nil && old.Spec.NodeAffinity.Required != nil {
		lenient, strict := at.Aside(), at.Aside()
		meta.NodeSelector(lenient, old.Spec.NodeAffinity.Required, true)
		meta.NodeSelector(strict, old.Spec.NodeAffinity.Required, false)
		in.AnyValues = strict.Found() > lenient.Found()
	}
	in.Check(at.Dot("spec"), &v.Spec)
	mountOptions(at, v)
	if old != nil {
		in.Check(at.Dot("spec"), &v.Spec) // as upstream: all is told twice
		updateVolume(at, v, old)
	}
	return at.Errors()
}

// mountOptions forbids the old annotation for sources that are not mounted
// with options.
func mountOptions(at check.At, v *corev1.PersistentVolume) {
	s := &v.Spec
	for _, mounted := range []bool{
		s.GCEPersistentDisk != nil, s.AWSElasticBlockStore != nil, s.Glusterfs != nil, s.NFS != nil, s.RBD != nil, s.Quobyte != nil,
		s.ISCSI != nil, s.Cinder != nil, s.CephFS != nil, s.AzureFile != nil, s.VsphereVolume != nil, s.AzureDisk != nil,
		s.PhotonPersistentDisk != nil,
	} {
		if mounted {
			return
		}
	}
	if _, ok := v.Annotations[corev1.MountOptionAnnotation]; ok {
		at.Dot("metadata.annotations." + corev1.MountOptionAnnotation).Forbidden("may not specify mount options for this volume type")
	}
}

func updateVolume(at check.At, v, old *corev1.PersistentVolume) {
	source := v.Spec.PersistentVolumeSource
	if c := source.CSI; c != nil && old.Spec.CSI != nil && old.Spec.CSI.ControllerExpandSecretRef == nil {
		c = c.DeepCopy()
		c.ControllerExpandSecretRef = nil // may be added
		source.CSI = c
	}
	if !equality.Semantic.DeepEqual(source, old.Spec.PersistentVolumeSource) {
		at.Dot("spec.persistentvolumesource").Forbidden("spec.persistentvolumesource is immutable after creation\n" +
			meta.Diff(old.Spec.PersistentVolumeSource, source))
	}
	at.Dot("volumeMode").Same(v.Spec.VolumeMode, old.Spec.VolumeMode)
	if old.Spec.NodeAffinity != nil && !sameAffinity(v.Spec.NodeAffinity, old.Spec.NodeAffinity) {
		at.Dot("nodeAffinity").Invalid(check.Bare(v.Spec.NodeAffinity), "field is immutable, except for updating from beta label to GA")
	}
	if old.Spec.VolumeAttributesClassName != nil && v.Spec.VolumeAttributesClassName == nil {
		at.Dot("spec.volumeAttributesClassName").Forbidden("update from non-nil value to nil is forbidden")
	}
}

// sameAffinity reports whether now is was, but for labels of nodes that have
// got a new name since.
func sameAffinity(now, was *corev1.VolumeNodeAffinity) bool {
	renamed := map[string]string{
		corev1.LabelFailureDomainBetaZone:   corev1.LabelTopologyZone,
		corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
		"beta.kubernetes.io/os":             corev1.LabelOSStable,
		"beta.kubernetes.io/arch":           corev1.LabelArchStable,
		corev1.LabelInstanceType:            corev1.LabelInstanceTypeStable,
	}
	same := equality.Semantic.Copy()
	_ = same.AddFunc(func(now, was corev1.NodeSelectorRequirement) bool {
		if now.Key != was.Key && renamed[was.Key] == now.Key {
			was.Key = now.Key
		}
		return equality.Semantic.DeepEqual(now, was)
	})
	return same.DeepEqual(now, was)
}

var oldVolumes = []struct {
	name, since string
	set         func(s *corev1.PersistentVolumeSource) bool
}{
	{"cephfs", "deprecated in v1.28, non-functional in v1.31+", func(s *corev1.PersistentVolumeSource) bool { return s.CephFS != nil }},
	{"photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+", func(s *corev1.PersistentVolumeSource) bool { return s.PhotonPersistentDisk != nil }},
	{"scaleIO", "deprecated in v1.16, non-functional in v1.22+", func(s *corev1.PersistentVolumeSource) bool { return s.ScaleIO != nil }},
	{"storageOS", "deprecated in v1.22, non-functional in v1.25+", func(s *corev1.PersistentVolumeSource) bool { return s.StorageOS != nil }},
	{"glusterfs", "deprecated in v1.25, non-functional in v1.26+", func(s *corev1.PersistentVolumeSource) bool { return s.Glusterfs != nil }},
	{"rbd", "deprecated in v1.28, non-functional in v1.31+", func(s *corev1.PersistentVolumeSource) bool { return s.RBD != nil }},
}

func warnVolume(v *corev1.PersistentVolume) (w check.Warnings) {
	at := check.At{}
	warnStorageClass(&w, v)
	if _, ok := v.Annotations[corev1.MountOptionAnnotation]; ok {
		w.At(at.Dot("metadata.annotations").Key(corev1.MountOptionAnnotation), `deprecated since v1.31; use "mountOptions" attribute instead`)
	}
	if v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		w.At(at.Dot("spec.persistentVolumeReclaimPolicy"),
			"The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.")
	}
	if a := v.Spec.NodeAffinity; a != nil && a.Required != nil {
		for i := range a.Required.NodeSelectorTerms {
			meta.WarnNodeSelectorTerm(&w, at.Dot("spec.nodeAffinity.required.nodeSelectorTerms").Index(i), &a.Required.NodeSelectorTerms[i], false)
		}
	}
	for _, old := range oldVolumes {
		if old.set(&v.Spec.PersistentVolumeSource) {
			w.At(at.Dot("spec").Dot(old.name), "%s", old.since)
		}
	}
	return w
}

func warnStorageClass(w *check.Warnings, obj metav1.Object) {
	if _, ok := obj.GetAnnotations()[corev1.BetaStorageClassAnnotation]; ok {
		w.At(check.At{}.Dot("metadata.annotations").Key(corev1.BetaStorageClassAnnotation),
			`deprecated since v1.8; use "storageClassName" attribute instead`)
	}
}
