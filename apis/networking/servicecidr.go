package networking

import (
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

var serviceCIDRs = apis.Define(apis.Resource[*networkingv1.ServiceCIDR]{
	Plural: "servicecidrs",
	Scope:  apis.Cluster,

	Prepare:  meta.KeepStatus[*networkingv1.ServiceCIDR],
	Validate: validateServiceCIDR,
	Subs: []apis.Sub[*networkingv1.ServiceCIDR]{
		meta.Status(func(_, _ *networkingv1.ServiceCIDR) field.ErrorList { return nil }, meta.StatusMeta()...),
	},

	Columns: []apis.Column[*networkingv1.ServiceCIDR]{
		{Name: "CIDRs", Cell: func(s *networkingv1.ServiceCIDR, _ time.Time) any { return strings.Join(s.Spec.CIDRs, ",") }},
	},
})

// validateServiceCIDR checks ranges of addresses. One that is there stays as
// it is, but for a range of the other family that comes beside it.
func validateServiceCIDR(s, old *networkingv1.ServiceCIDR) field.ErrorList {
	root, now := check.New(), s.Spec.CIDRs
	at := root.Dot("spec.cidrs")
	if old == nil {
		ranges(at, &s.Spec)
		return root.Errors()
	}
	was := old.Spec.CIDRs
	grown := len(was) == 1 && len(now) == 2
	if !grown && len(was) != len(now) {
		at.Invalid(now, validation.FieldImmutableErrorMsg)
		return root.Errors()
	}
	for i := range was {
		at.Index(i).Same(now[i], was[i])
	}
	if grown {
		ranges(at, &s.Spec)
	}
	return root.Errors()
}

func ranges(at check.At, s *networkingv1.ServiceCIDRSpec) {
	switch {
	case len(s.CIDRs) == 0:
		at.Required("at least one CIDR required")
		return
	case len(s.CIDRs) > 2:
		at.Invalid(check.Bare(s), "may only hold up to 2 values")
		return
	}
	for i, c := range s.CIDRs {
		at.Add(utilvalidation.IsValidCIDR(at.Index(i).Path(), c)...)
	}
	if len(s.CIDRs) < 2 {
		return
	}
	a, b := netutils.IPFamilyOfCIDRString(s.CIDRs[0]), netutils.IPFamilyOfCIDRString(s.CIDRs[1])
	if a == b && a != netutils.IPFamilyUnknown {
		at.Invalid(s.CIDRs, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64")
	}
}
