package storage

import (
	"cmp"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

var storageClasses = apis.Define(apis.Resource[*storagev1.StorageClass]{
	Plural: "storageclasses",
	Short:  []string{"sc"},
	Scope:  apis.Cluster,

	Default:  defaultStorageClass,
	Validate: validateStorageClass,
	Warn:     warnStorageClass,

	Columns: []apis.Column[*storagev1.StorageClass]{
		{Name: "Name", Cell: func(c *storagev1.StorageClass, _ time.Time) any {
			if c.Annotations["storageclass.kubernetes.io/is-default-class"] == "true" || c.Annotations["storageclass.beta.kubernetes.io/is-default-class"] == "true" {
				return c.Name + " (default)"
			}
			return c.Name
		}},
		{Name: "Provisioner", Cell: func(c *storagev1.StorageClass, _ time.Time) any { return c.Provisioner }},
		{Name: "ReclaimPolicy", Cell: func(c *storagev1.StorageClass, _ time.Time) any { return string(meta.Deref(c.ReclaimPolicy, "")) }},
		{Name: "VolumeBindingMode", Cell: func(c *storagev1.StorageClass, _ time.Time) any { return string(meta.Deref(c.VolumeBindingMode, "")) }},
		{Name: "AllowVolumeExpansion", Cell: func(c *storagev1.StorageClass, _ time.Time) any { return meta.Deref(c.AllowVolumeExpansion, false) }},
	},
	Lifetime: apis.Lifetime[*storagev1.StorageClass]{ReturnsDeleted: true},
})

func defaultStorageClass(c *storagev1.StorageClass) {
	c.ReclaimPolicy = cmp.Or(c.ReclaimPolicy, new(corev1.PersistentVolumeReclaimDelete))
	c.VolumeBindingMode = cmp.Or(c.VolumeBindingMode, new(storagev1.VolumeBindingImmediate))
}

func validateStorageClass(c, old *storagev1.StorageClass) field.ErrorList {
	at := check.New()
	driver(at.Dot("provisioner"), c.Provisioner)
	parameters(at.Dot("parameters"), c.Parameters)
	if p := meta.Deref(c.ReclaimPolicy, ""); p != "" {
		check.OneOf(at.Dot("reclaimPolicy"), p, corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain)
	}
	if mode := at.Dot("volumeBindingMode"); c.VolumeBindingMode == nil {
		mode.Required("")
	} else {
		check.OneOf(mode, *c.VolumeBindingMode, storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer)
	}
	topologies(at.Dot("allowedTopologies"), c.AllowedTopologies)
	if old != nil {
		at.Dot("parameters").Same(c.Parameters, old.Parameters)
		at.Dot("provisioner").Same(c.Provisioner, old.Provisioner)
		at.Dot("reclaimPolicy").Same(c.ReclaimPolicy, old.ReclaimPolicy)
		at.Dot("volumeBindingMode").Same(c.VolumeBindingMode, old.VolumeBindingMode)
	}
	return at.Errors()
}

// topologies checks where volumes may be. No two terms say the same. As
// upstream: one that says nothing is as if it stood as often as there are terms.
func topologies(at check.At, all []corev1.TopologySelectorTerm) {
	said := make([]map[string]check.Set[string], len(all))
	for i, t := range all {
		at := at.Index(i).Dot("matchLabelExpressions")
		terms := map[string]check.Set[string]{}
		for j, e := range t.MatchLabelExpressions {
			at := at.Index(j)
			values := requirement(at, e)
			if _, twice := terms[e.Key]; twice {
				at.Dot("key").Duplicate(e.Key)
			}
			terms[e.Key] = values
		}
		for _, s := range said {
			if equality.Semantic.DeepEqual(terms, s) {
				at.Duplicate("")
			}
		}
		said = append(said, terms)
	}
}

func requirement(at check.At, e corev1.TopologySelectorLabelRequirement) check.Set[string] {
	values := check.Set[string]{}
	if len(e.Values) == 0 {
		at.Dot("values").Required("")
	}
	for i, v := range e.Values {
		if values.Twice(v) {
			at.Dot("values").Index(i).Duplicate(v)
		}
	}
	meta.LabelName(at.Dot("key"), e.Key)
	return values
}

func warnStorageClass(c, _ *storagev1.StorageClass) []string {
	var w check.Warnings
	for i, t := range c.AllowedTopologies {
		for j, e := range t.MatchLabelExpressions {
			if instead := meta.OldNodeLabel(e.Key); instead != "" {
				w.At(check.At{}.Dot("allowedTopologies").Index(i).Dot("matchLabelExpressions").Index(j).Dot("key"), "%s", instead)
			}
		}
	}
	return w
}
