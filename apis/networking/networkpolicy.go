package networking

import (
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/knarr-dev/knarr/apis"
)

var networkPolicies = apis.Define(apis.Resource[*networkingv1.NetworkPolicy]{
	Plural: "networkpolicies",
	Short:  []string{"netpol"},
	Spec:   func(p *networkingv1.NetworkPolicy) any { return &p.Spec },
})
