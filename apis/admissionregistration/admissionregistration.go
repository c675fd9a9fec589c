// Package admissionregistration says what the kinds of the
// admissionregistration.k8s.io group are: who else is asked about a write.
package admissionregistration

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/knarr-dev/knarr/apis"
)

// Group is admissionregistration.k8s.io/v1.
var Group = apis.In(admissionregistrationv1.SchemeGroupVersion, mutatingWebhookConfigurations, validatingWebhookConfigurations)
