package networking

import (
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/knarr-dev/knarr/apis"
)

var ingressClasses = apis.Define(apis.Resource[*networkingv1.IngressClass]{
	Plural: "ingressclasses",
	Scope:  apis.Cluster,
	Spec:   func(c *networkingv1.IngressClass) any { return &c.Spec },
})
