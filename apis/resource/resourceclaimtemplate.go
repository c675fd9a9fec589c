package resource

import (
	resourcev1 "k8s.io/api/resource/v1"

	"github.com/knarr-dev/knarr/apis"
)

var resourceClaimTemplates = apis.Define(apis.Resource[*resourcev1.ResourceClaimTemplate]{
	Plural:   "resourceclaimtemplates",
	Columns:  []apis.Column[*resourcev1.ResourceClaimTemplate]{},
	Lifetime: apis.Lifetime[*resourcev1.ResourceClaimTemplate]{ReturnsDeleted: true},
})
