package volume

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

// ClaimTemplate checks a claim to be made for a pod.
func ClaimTemplate(at check.At, t *corev1.PersistentVolumeClaimTemplate) {
	m := at.Dot("metadata")
	m.Add(validation.ValidateAnnotations(t.Annotations, m.Dot("annotations").Path())...)
	meta.Labels(m.Dot("labels"), t.Labels)
	check.Unset(m, &t.ObjectMeta, "cannot be set", "Labels", "Annotations")
	Claim(at.Dot("spec"), &t.Spec, Lenience{})
}

// Lenience is what a claim may keep since it was stored with it.
type Lenience struct {
	Selector  bool // values in the selector that are no label values
	DataGroup bool // a data source of a group that is no DNS name
}

// Claim checks the spec of a claim.
func Claim(at check.At, c *corev1.PersistentVolumeClaimSpec, may Lenience) {
	if len(c.AccessModes) == 0 {
		at.Dot("accessModes").Required("at least 1 access mode is required")
	}
	if c.Selector != nil {
		meta.Selector(at.Dot("selector"), c.Selector, may.Selector)
	}
	AccessModes(at.Dot("accessModes"), c.AccessModes)
	storage := at.Dot("resources").Key("storage")
	if size, ok := c.Resources.Requests[corev1.ResourceStorage]; ok {
		meta.PositiveQuantity(storage, size)
	} else {
		storage.Required("")
	}
	if class := meta.Deref(c.StorageClassName, ""); class != "" {
		meta.Name(at.Dot("storageClassName"), class)
	}
	if c.VolumeMode != nil {
		Mode(at.Dot("volumeMode"), *c.VolumeMode)
	}
	dataSources(at, c, may)
	if class := meta.Deref(c.VolumeAttributesClassName, ""); class != "" {
		meta.Name(at.Dot("volumeAttributesClassName"), class)
	}
}

// AccessModes demands modes that there are, and that the one for a single pod
// stands alone.
func AccessModes(at check.At, modes []corev1.PersistentVolumeAccessMode) {
	known := []corev1.PersistentVolumeAccessMode{
		corev1.ReadWriteOnce, corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOncePod,
	}
	others := false
	for _, m := range modes {
		others = check.OneOf(at, m, known...) && m != corev1.ReadWriteOncePod || others
	}
	if others && slices.Contains(modes, corev1.ReadWriteOncePod) {
		at.Forbidden("may not use ReadWriteOncePod with other access modes")
	}
}

// Mode demands a mode that there is.
func Mode(at check.At, m corev1.PersistentVolumeMode) {
	check.OneOf(at, m, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)
}

// WarnClaim warns of sizes that are no whole number of bytes.
func WarnClaim(w *check.Warnings, at check.At, c *corev1.PersistentVolumeClaimSpec) {
	meta.WarnFraction(w, at.Dot("resources.requests"), c.Resources.Requests, corev1.ResourceStorage)
	meta.WarnFraction(w, at.Dot("resources.limits"), c.Resources.Limits, corev1.ResourceStorage)
}

func dataSources(at check.At, c *corev1.PersistentVolumeClaimSpec, may Lenience) {
	one := func(at check.At, group *string, kind, name string) {
		at.Dot("name").Present(name)
		at.Dot("kind").Present(kind)
		switch g := meta.Deref(group, ""); {
		case g == "" && kind != "PersistentVolumeClaim":
			at.Invalid(kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup")
		case g != "" && !may.DataGroup:
			at.Dot("apiGroup").Wrong(g, utilvalidation.IsDNS1123Subdomain(g))
		}
	}
	source, ref := c.DataSource, c.DataSourceRef
	if source != nil {
		one(at.Dot("dataSource"), source.APIGroup, source.Kind, source.Name)
	}
	if ref == nil {
		return
	}
	one(at.Dot("dataSourceRef"), ref.APIGroup, ref.Kind, ref.Name)
	namespace := meta.Deref(ref.Namespace, "")
	if namespace != "" {
		meta.Namespace(at.Dot("dataSourceRef.namespace"), namespace)
	}
	switch {
	case source == nil:
	case namespace != "":
		at.Invalid(at.Dot("dataSource").Path(), "may not be specified when dataSourceRef.namespace is specified")
	case meta.Deref(source.APIGroup, "\x00") != meta.Deref(ref.APIGroup, "\x00") || source.Kind != ref.Kind || source.Name != ref.Name:
		at.Invalid(at.Dot("dataSource").Path(), "must match dataSourceRef")
	}
}
