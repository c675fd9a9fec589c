// Package rbac says what the kinds of the rbac.authorization.k8s.io group are: who may do what.
package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/knarr-dev/knarr/apis"
)

// Group is rbac.authorization.k8s.io/v1.
var Group = apis.In(rbacv1.SchemeGroupVersion, clusterRoleBindings, clusterRoles, roleBindings, roles)
