package authorization

import (
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/knarr-dev/knarr/apis"
)

var selfSubjectRulesReviews = apis.Define(apis.Resource[*authorizationv1.SelfSubjectRulesReview]{
	Plural: "selfsubjectrulesreviews",
	Scope:  apis.Cluster,
	Verbs:  []string{"create"},
})
