// Package admissionregistration says what the kinds of the
// admissionregistration.k8s.io group are: who else is asked about a
// write, and what it must be like.
package admissionregistration

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/knarr-dev/knarr/apis"
)

// Group is admissionregistration.k8s.io/v1.
var Group = apis.In(admissionregistrationv1.SchemeGroupVersion,
	mutatingAdmissionPolicies, mutatingAdmissionPolicyBindings, mutatingWebhookConfigurations,
	validatingAdmissionPolicies, validatingAdmissionPolicyBindings, validatingWebhookConfigurations)
