package rbac

import (
	"time"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/knarr-dev/knarr/apis"
)

var roleBindings = apis.Define(apis.Resource[*rbacv1.RoleBinding]{
	Plural: "rolebindings",

	Columns: []apis.Column[*rbacv1.RoleBinding]{
		{Name: "Role", Cell: func(b *rbacv1.RoleBinding, _ time.Time) any { return b.RoleRef.Kind + "/" + b.RoleRef.Name }},
		{Name: "Users", Wide: true, Cell: func(b *rbacv1.RoleBinding, _ time.Time) any { return named(b.Subjects, rbacv1.UserKind) }},
		{Name: "Groups", Wide: true, Cell: func(b *rbacv1.RoleBinding, _ time.Time) any { return named(b.Subjects, rbacv1.GroupKind) }},
		{Name: "ServiceAccounts", Wide: true, Cell: func(b *rbacv1.RoleBinding, _ time.Time) any {
			return named(b.Subjects, rbacv1.ServiceAccountKind)
		}},
	},
	Lifetime: apis.Lifetime[*rbacv1.RoleBinding]{UpsertsOnUpdate: true},
})
