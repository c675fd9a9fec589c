package core

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/volume"
)

var persistentVolumeClaims = apis.Define(apis.Resource[*corev1.PersistentVolumeClaim]{
	Plural:   "persistentvolumeclaims",
	Short:    []string{"pvc"},
	Default:  volume.DefaultClaim,
	Prepare:  prepareClaim,
	Validate: validateClaim,
	Warn:     func(c, _ *corev1.PersistentVolumeClaim) []string { return warnClaim(c) },
	Subs:     []apis.Sub[*corev1.PersistentVolumeClaim]{meta.Status(validateClaimStatus)},
	Fields: map[string]func(*corev1.PersistentVolumeClaim) string{
		"name": func(c *corev1.PersistentVolumeClaim) string { return c.Name },
	},
	Columns: []apis.Column[*corev1.PersistentVolumeClaim]{
		{Name: "Status", Cell: func(c *corev1.PersistentVolumeClaim, _ time.Time) any { return phase(c, c.Status.Phase) }},
		{Name: "Volume", Cell: func(c *corev1.PersistentVolumeClaim, _ time.Time) any { return c.Spec.VolumeName }},
		{Name: "Capacity", Cell: func(c *corev1.PersistentVolumeClaim, _ time.Time) any {
			if c.Spec.VolumeName == "" {
				return ""
			}
			return c.Status.Capacity.Storage().String()
		}},
		{Name: "Access Modes", Cell: func(c *corev1.PersistentVolumeClaim, _ time.Time) any {
			if c.Spec.VolumeName == "" {
				return ""
			}
			return accessModes(c.Status.AccessModes)
		}},
		{Name: "StorageClass", Cell: func(c *corev1.PersistentVolumeClaim, _ time.Time) any {
			return storageClass(c, c.Spec.StorageClassName)
		}},
		{Name: "VolumeAttributesClass", Cell: func(c *corev1.PersistentVolumeClaim, _ time.Time) any {
			return meta.Deref(c.Spec.VolumeAttributesClassName, "<unset>")
		}},
		{Name: "VolumeMode", Wide: true, Cell: func(c *corev1.PersistentVolumeClaim, _ time.Time) any {
			return string(meta.Deref(c.Spec.VolumeMode, "<unset>"))
		}},
	},
	Lifetime: apis.Lifetime[*corev1.PersistentVolumeClaim]{ReturnsDeleted: true},
})

// prepareClaim also makes the two fields for a data source agree, the second
// of which came later and may name more.
func prepareClaim(c, old *corev1.PersistentVolumeClaim) {
	meta.KeepStatus(c, old)
	if old == nil {
		c.Status.Phase = corev1.ClaimPending
	}
	had, hadRef := false, false
	if old != nil {
		hadRef = old.Spec.DataSourceRef != nil
		had = hadRef || old.Spec.DataSource != nil
	}
	if r := c.Spec.DataSourceRef; r != nil && !hadRef && meta.Deref(r.Namespace, "") != "" {
		c.Spec.DataSourceRef = nil // in another namespace
	}
	if s := c.Spec.DataSource; s != nil && !had && c.Spec.DataSourceRef == nil {
		group := meta.Deref(s.APIGroup, "")
		claim := s.Kind == "PersistentVolumeClaim" && group == ""
		if snapshot := s.Kind == "VolumeSnapshot" && group == "snapshot.storage.k8s.io"; !claim && !snapshot {
			c.Spec.DataSource = nil
		}
	}
	sameSources(&c.Spec)
}

// sameSources copies whichever data source is set to where there is none.
func sameSources(c *corev1.PersistentVolumeClaimSpec) {
	switch s, r := c.DataSource, c.DataSourceRef; {
	case s != nil && r == nil:
		c.DataSourceRef = &corev1.TypedObjectReference{APIGroup: s.APIGroup, Kind: s.Kind, Name: s.Name}
	case r != nil && s == nil && meta.Deref(r.Namespace, "") == "":
		c.DataSource = &corev1.TypedLocalObjectReference{APIGroup: r.APIGroup, Kind: r.Kind, Name: r.Name}
	}
}

func validateClaim(c, old *corev1.PersistentVolumeClaim) field.ErrorList {
	at := check.New()
	if old == nil {
		volume.Claim(at.Dot("spec"), &c.Spec, volume.Lenience{})
		return at.Errors()
	}
	was := old.DeepCopy()
	sameSources(&was.Spec)
	volume.Claim(at.Dot("spec"), &c.Spec, lenience(&was.Spec))
	updateClaim(at, c, was)
	return at.Errors()
}

func lenience(was *corev1.PersistentVolumeClaimSpec) volume.Lenience {
	may := volume.Lenience{}
	for _, group := range []*string{
		meta.Deref(was.DataSource, corev1.TypedLocalObjectReference{}).APIGroup,
		meta.Deref(was.DataSourceRef, corev1.TypedObjectReference{}).APIGroup,
	} {
		may.DataGroup = may.DataGroup || meta.Deref(group, "") != "" && len(utilvalidation.IsDNS1123Subdomain(*group)) > 0
	}
	if was.Selector != nil {
		at := check.New()
		meta.Selector(at, was.Selector, false)
		may.Selector = at.Found() > 0
	}
	return may
}

// updateClaim checks a change. The spec of a claim is fixed, but for the size
// and the class of attributes once it is bound.
func updateClaim(at check.At, c, was *corev1.PersistentVolumeClaim) {
	now, spec := c.Spec.DeepCopy(), at.Dot("spec")
	before := was.Spec
	if before.VolumeName == "" {
		before.VolumeName = now.VolumeName
	}
	class := corev1.BetaStorageClassAnnotation
	oldClass, annotated := was.Annotations[class]
	newClass, stays := c.Annotations[class]
	adopted := before.StorageClassName == nil && now.StorageClassName != nil && (!annotated || *now.StorageClassName == oldClass)
	if annotated && adopted && (!stays || newClass == oldClass) {
		now.StorageClassName = nil // said in the annotation before
	} else {
		if oldClass != newClass {
			at.Dot("metadata.annotations").Key(class).Invalid(newClass, "field is immutable")
		}
		if adopted {
			now.StorageClassName = nil
		}
	}
	if c.Status.Phase == corev1.ClaimBound {
		if now.Resources.Requests != nil {
			now.Resources.Requests[corev1.ResourceStorage] = before.Resources.Requests[corev1.ResourceStorage]
		}
		now.VolumeAttributesClassName = before.VolumeAttributesClassName
	}
	if !equality.Semantic.DeepEqual(*now, before) {
		spec.Forbidden("spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n" +
			meta.Diff(before, *now))
	}
	size := c.Spec.Resources.Requests.Storage()
	if size.Cmp(*was.Spec.Resources.Requests.Storage()) < 0 && size.Cmp(*was.Status.Capacity.Storage()) <= 0 {
		spec.Dot("resources.requests.storage").Forbidden("field can not be less than status.capacity")
	}
	at.Dot("volumeMode").Same(c.Spec.VolumeMode, was.Spec.VolumeMode)
	if was.Status.CurrentVolumeAttributesClassName == nil || equality.Semantic.DeepEqual(c.Spec.VolumeAttributesClassName, was.Spec.VolumeAttributesClassName) {
		return
	}
	const current = " is forbidden when status.currentVolumeAttributesClassName is not nil"
	if name := c.Spec.VolumeAttributesClassName; name == nil {
		spec.Dot("volumeAttributesClassName").Forbidden("update to nil" + current)
	} else if *name == "" {
		spec.Dot("volumeAttributesClassName").Forbidden("update to empty string" + current)
	}
}

var resizes = []corev1.ClaimResourceStatus{
	corev1.PersistentVolumeClaimControllerResizeInProgress, corev1.PersistentVolumeClaimControllerResizeInfeasible,
	corev1.PersistentVolumeClaimNodeResizePending, corev1.PersistentVolumeClaimNodeResizeInProgress,
	corev1.PersistentVolumeClaimNodeResizeInfeasible,
}

func validateClaimStatus(c, _ *corev1.PersistentVolumeClaim) field.ErrorList {
	at := check.New()
	if len(c.Spec.AccessModes) == 0 {
		at.Dot("Spec.accessModes").Required("")
	}
	at = at.Dot("status")
	for name, q := range check.Sorted(c.Status.Capacity) {
		meta.BasicQuantity(at.Dot("capacity").Key(string(name)), q)
	}
	statuses := at.Dot("allocatedResourceStatuses")
	for name, resize := range check.Sorted(c.Status.AllocatedResourceStatuses) {
		claimResource(statuses, name)
		if !slices.Contains(resizes, resize) {
			check.Unsupported(statuses, string(name), slices.Sorted(slices.Values(asStrings(resizes)))...)
		}
	}
	allocated := at.Dot("allocatedResources")
	for name, q := range check.Sorted(c.Status.AllocatedResources) {
		before := at.Found()
		if claimResource(allocated, name); at.Found() > before {
			continue
		}
		if meta.BasicQuantity(allocated.Key(string(name)), q); at.Found() == before {
			meta.Quantity(allocated.Key(string(name)), corev1.ResourceStorage, q)
		}
	}
	return at.Errors()
}

func asStrings[S ~string](all []S) (out []string) {
	for _, s := range all {
		out = append(out, string(s))
	}
	return out
}

func claimResource(at check.At, name corev1.ResourceName) {
	before := at.Found()
	if at.Qualified(string(name)); at.Found() == before && meta.Native(name) {
		check.OneOf(at, string(name), string(corev1.ResourceStorage))
	}
}

func warnClaim(c *corev1.PersistentVolumeClaim) (w check.Warnings) {
	warnStorageClass(&w, c)
	volume.WarnClaim(&w, check.At{}.Dot("spec"), &c.Spec)
	return w
}
