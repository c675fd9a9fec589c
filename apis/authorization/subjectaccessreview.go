package authorization

import (
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/knarr-dev/knarr/apis"
)

var subjectAccessReviews = apis.Define(apis.Resource[*authorizationv1.SubjectAccessReview]{
	Plural: "subjectaccessreviews",
	Scope:  apis.Cluster,
	Verbs:  []string{"create"},
})
