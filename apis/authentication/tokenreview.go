package authentication

import (
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/knarr-dev/knarr/apis"
)

var tokenReviews = apis.Define(apis.Resource[*authenticationv1.TokenReview]{
	Plural: "tokenreviews",
	Scope:  apis.Cluster,
	Verbs:  []string{"create"},
})
