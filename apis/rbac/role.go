package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/knarr-dev/knarr/apis"
)

var roles = apis.Define(apis.Resource[*rbacv1.Role]{
	Plural:   "roles",
	Lifetime: apis.Lifetime[*rbacv1.Role]{UpsertsOnUpdate: true},
})
