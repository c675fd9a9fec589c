// Package resource says what the kinds of the resource.k8s.io group are: devices, and claims to them.
package resource

import (
	resourcev1 "k8s.io/api/resource/v1"

	"github.com/knarr-dev/knarr/apis"
)

// Group is resource.k8s.io/v1.
var Group = apis.In(resourcev1.SchemeGroupVersion, deviceClasses, resourceClaims, resourceClaimTemplates, resourceSlices)
