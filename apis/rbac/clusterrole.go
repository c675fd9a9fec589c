package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/knarr-dev/knarr/apis"
)

var clusterRoles = apis.Define(apis.Resource[*rbacv1.ClusterRole]{
	Plural:   "clusterroles",
	Scope:    apis.Cluster,
	Lifetime: apis.Lifetime[*rbacv1.ClusterRole]{UpsertsOnUpdate: true},
})
