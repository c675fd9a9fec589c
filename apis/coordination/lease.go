package coordination

import (
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

var leases = apis.Define(apis.Resource[*coordinationv1.Lease]{
	Plural: "leases",

	Prepare:  prepareLease,
	Validate: validateLease,
	Columns: []apis.Column[*coordinationv1.Lease]{
		{Name: "Holder", Cell: func(l *coordinationv1.Lease, _ time.Time) any { return meta.Deref(l.Spec.HolderIdentity, "") }},
	},
	Lifetime: apis.Lifetime[*coordinationv1.Lease]{UpsertsOnUpdate: true, NeedsVersion: true},
})

// prepareLease drops what is for elections that are held by the server.
func prepareLease(l, old *coordinationv1.Lease) {
	if old == nil || old.Spec.Strategy == nil {
		l.Spec.Strategy = nil
	}
	if old == nil || old.Spec.PreferredHolder == nil {
		l.Spec.PreferredHolder = nil
	}
}

func validateLease(l, _ *coordinationv1.Lease) field.ErrorList {
	root, s := check.New(), &l.Spec
	at := root.Dot("spec")
	if s.LeaseDurationSeconds != nil && *s.LeaseDurationSeconds <= 0 {
		at.Dot("leaseDurationSeconds").Invalid(*s.LeaseDurationSeconds, "must be greater than 0")
	}
	if s.LeaseTransitions != nil && *s.LeaseTransitions < 0 {
		at.Dot("leaseTransitions").Invalid(*s.LeaseTransitions, "must be greater than or equal to 0")
	}
	strategy := meta.Deref(s.Strategy, "")
	if at := at.Dot("strategy.strategy"); s.Strategy != nil { // as upstream: the name twice
		if strings.Contains(string(strategy), "/") {
			at.Qualified(string(strategy))
		} else {
			check.OneOf(at, strategy, coordinationv1.OldestEmulationVersion)
		}
	}
	if strategy == "" && meta.Deref(s.PreferredHolder, "") != "" {
		at.Dot("preferredHolder").Forbidden("may only be specified if `strategy` is defined")
	}
	return root.Errors()
}
