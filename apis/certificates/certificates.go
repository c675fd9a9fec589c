// Package certificates says what the kinds of the certificates.k8s.io group are: requests for
// certificates, and what became of them.
package certificates

import (
	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/knarr-dev/knarr/apis"
)

// Group is certificates.k8s.io/v1.
var Group = apis.In(certificatesv1.SchemeGroupVersion, certificateSigningRequests)
