// Package networking says what the kinds of the networking.k8s.io group are: what may talk to
// what, and from where services take their addresses.
package networking

import (
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/knarr-dev/knarr/apis"
)

// Group is networking.k8s.io/v1.
var Group = apis.In(networkingv1.SchemeGroupVersion, ingressClasses, ingresses, ipAddresses, networkPolicies, serviceCIDRs)
