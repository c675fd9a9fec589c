package storage

import (
	"fmt"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/volume"
)

const maxNodeID = 256 // as the specification of CSI has it

var csiNodes = apis.Define(apis.Resource[*storagev1.CSINode]{
	Plural: "csinodes",
	Scope:  apis.Cluster,

	Validate: validateCSINode,

	Columns: []apis.Column[*storagev1.CSINode]{
		{Name: "Drivers", Type: "integer", Cell: func(n *storagev1.CSINode, _ time.Time) any { return int64(len(n.Spec.Drivers)) }},
	},
	Lifetime: apis.Lifetime[*storagev1.CSINode]{NeedsVersion: true, ReturnsDeleted: true},
})

func validateCSINode(n, old *storagev1.CSINode) field.ErrorList {
	root, names := check.New(), check.Set[string]{}
	at := root.Dot("spec.drivers")
	for i, d := range n.Spec.Drivers {
		nodeDriver(at.Index(i), d, names)
	}
	if old == nil {
		return root.Errors()
	}
	// A driver that is there stays as it is, but for how much it can do.
	for _, was := range old.Spec.Drivers {
		for _, d := range n.Spec.Drivers {
			if d.Name == was.Name {
				d.Allocatable, was.Allocatable = nil, nil
				at.SameBare(d, was)
			}
		}
	}
	return root.Errors()
}

func nodeDriver(at check.At, d storagev1.CSINodeDriver, names check.Set[string]) {
	volume.Driver(at.Dot("name"), d.Name)
	if id := at.Dot("nodeID"); d.NodeID == "" {
		id.Required("")
	} else if len(d.NodeID) > maxNodeID {
		id.Invalid(d.NodeID, fmt.Sprintf("must be %d characters or less", maxNodeID))
	}
	if d.Allocatable != nil {
		check.NonNegativeIf(at.Dot("allocatable.count"), d.Allocatable.Count)
	}
	if names.Twice(d.Name) {
		at.Dot("name").Duplicate(d.Name)
	}
	keys := check.Set[string]{}
	for _, key := range d.TopologyKeys { // as upstream: told at the driver
		at.Present(key)
		if keys.Twice(key) {
			at.Duplicate(key)
		}
		at.Qualified(key)
	}
}
