package resource

import (
	resourcev1 "k8s.io/api/resource/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var resourceClaims = apis.Define(apis.Resource[*resourcev1.ResourceClaim]{
	Plural:   "resourceclaims",
	Prepare:  meta.KeepStatus[*resourcev1.ResourceClaim],
	Subs:     []apis.Sub[*resourcev1.ResourceClaim]{meta.Status[*resourcev1.ResourceClaim](nil)},
	Lifetime: apis.Lifetime[*resourcev1.ResourceClaim]{ReturnsDeleted: true},
})
