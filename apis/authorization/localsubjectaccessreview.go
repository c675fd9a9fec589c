package authorization

import (
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/knarr-dev/knarr/apis"
)

var localSubjectAccessReviews = apis.Define(apis.Resource[*authorizationv1.LocalSubjectAccessReview]{
	Plural: "localsubjectaccessreviews",
	Verbs:  []string{"create"},
})
