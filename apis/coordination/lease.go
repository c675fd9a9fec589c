package coordination

import (
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var leases = apis.Define(apis.Resource[*coordinationv1.Lease]{
	Plural: "leases",
	Columns: []apis.Column[*coordinationv1.Lease]{
		{Name: "Holder", Cell: func(l *coordinationv1.Lease, _ time.Time) any { return meta.Deref(l.Spec.HolderIdentity, "") }},
	},
	Lifetime: apis.Lifetime[*coordinationv1.Lease]{UpsertsOnUpdate: true, NeedsVersion: true},
})
