// Package discovery says what the kinds of the discovery.k8s.io group are: where services lead.
package discovery

import (
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/knarr-dev/knarr/apis"
)

// Group is discovery.k8s.io/v1.
var Group = apis.In(discoveryv1.SchemeGroupVersion, endpointSlices)
