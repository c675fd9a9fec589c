package storage

import (
	"time"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

var csiStorageCapacities = apis.Define(apis.Resource[*storagev1.CSIStorageCapacity]{
	Plural: "csistoragecapacities",

	Validate: validateCSIStorageCapacity,
	Warn: func(c, _ *storagev1.CSIStorageCapacity) []string {
		var w check.Warnings
		meta.WarnSelector(&w, check.At{}.Dot("nodeTopology"), c.NodeTopology)
		return w
	},

	Columns: []apis.Column[*storagev1.CSIStorageCapacity]{
		{Name: "StorageClassName", Cell: func(c *storagev1.CSIStorageCapacity, _ time.Time) any { return c.StorageClassName }},
		{Name: "Capacity", Cell: func(c *storagev1.CSIStorageCapacity, _ time.Time) any {
			if c.Capacity == nil {
				return "<unset>"
			}
			return c.Capacity.String()
		}},
		{Name: "Age"},
	},
	Lifetime: apis.Lifetime[*storagev1.CSIStorageCapacity]{NeedsVersion: true},
})

func validateCSIStorageCapacity(c, old *storagev1.CSIStorageCapacity) field.ErrorList {
	at := check.New()
	meta.Selector(at.Dot("nodeTopology"), c.NodeTopology, old != nil && meta.Odd(old.NodeTopology))
	meta.Name(at.Dot("storageClassName"), c.StorageClassName)
	if c.Capacity != nil {
		meta.Quantity(at.Dot("capacity"), "", *c.Capacity)
	}
	if old != nil {
		// What was asked of the driver; the answer may change.
		at.Dot("nodeTopology").Same(c.NodeTopology, old.NodeTopology)
		at.Dot("storageClassName").Same(c.StorageClassName, old.StorageClassName)
	}
	return at.Errors()
}
