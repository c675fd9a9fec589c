// Package authorization says what the kinds of the authorization.k8s.io group are: questions of what
// somebody may do, answered and not stored.
package authorization

import (
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/knarr-dev/knarr/apis"
)

// Group is authorization.k8s.io/v1.
var Group = apis.In(authorizationv1.SchemeGroupVersion, localSubjectAccessReviews, selfSubjectAccessReviews, selfSubjectRulesReviews, subjectAccessReviews)
