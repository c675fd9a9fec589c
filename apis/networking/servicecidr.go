package networking

import (
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var serviceCIDRs = apis.Define(apis.Resource[*networkingv1.ServiceCIDR]{
	Plural:  "servicecidrs",
	Scope:   apis.Cluster,
	Prepare: meta.KeepStatus[*networkingv1.ServiceCIDR],
	Subs:    []apis.Sub[*networkingv1.ServiceCIDR]{meta.Status[*networkingv1.ServiceCIDR](nil)},
	Columns: []apis.Column[*networkingv1.ServiceCIDR]{
		{Name: "CIDRs", Cell: func(s *networkingv1.ServiceCIDR, _ time.Time) any { return strings.Join(s.Spec.CIDRs, ",") }},
	},
})
