package authorization

import (
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/knarr-dev/knarr/apis"
)

var selfSubjectAccessReviews = apis.Define(apis.Resource[*authorizationv1.SelfSubjectAccessReview]{
	Plural: "selfsubjectaccessreviews",
	Scope:  apis.Cluster,
	Verbs:  []string{"create"},
})
