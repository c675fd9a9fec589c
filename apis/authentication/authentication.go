// Package authentication says what the kinds of the authentication.k8s.io group are: questions of who
// somebody is, answered and not stored.
package authentication

import (
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/knarr-dev/knarr/apis"
)

// Group is authentication.k8s.io/v1.
var Group = apis.In(authenticationv1.SchemeGroupVersion, selfSubjectReviews, tokenReviews)
