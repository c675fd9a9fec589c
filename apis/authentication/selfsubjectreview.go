package authentication

import (
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/knarr-dev/knarr/apis"
)

var selfSubjectReviews = apis.Define(apis.Resource[*authenticationv1.SelfSubjectReview]{
	Plural: "selfsubjectreviews",
	Scope:  apis.Cluster,
	Verbs:  []string{"create"},
})
