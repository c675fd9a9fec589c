package rbac

import (
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
)

var clusterRoleBindings = apis.Define(apis.Resource[*rbacv1.ClusterRoleBinding]{
	Plural: "clusterrolebindings",
	Scope:  apis.Cluster,

	Name:     segment,
	Default:  func(b *rbacv1.ClusterRoleBinding) { defaultBinding(&b.RoleRef, b.Subjects) },
	Validate: validateClusterRoleBinding,

	Columns: []apis.Column[*rbacv1.ClusterRoleBinding]{
		{Name: "Role", Cell: func(b *rbacv1.ClusterRoleBinding, _ time.Time) any { return b.RoleRef.Kind + "/" + b.RoleRef.Name }},
		{Name: "Users", Wide: true, Cell: func(b *rbacv1.ClusterRoleBinding, _ time.Time) any { return named(b.Subjects, rbacv1.UserKind) }},
		{Name: "Groups", Wide: true, Cell: func(b *rbacv1.ClusterRoleBinding, _ time.Time) any { return named(b.Subjects, rbacv1.GroupKind) }},
		{Name: "ServiceAccounts", Wide: true, Cell: func(b *rbacv1.ClusterRoleBinding, _ time.Time) any {
			return named(b.Subjects, rbacv1.ServiceAccountKind)
		}},
	},
	Lifetime: apis.Lifetime[*rbacv1.ClusterRoleBinding]{UpsertsOnUpdate: true},
})

func validateClusterRoleBinding(b, old *rbacv1.ClusterRoleBinding) field.ErrorList {
	at := check.New()
	var was *rbacv1.RoleRef
	if old != nil {
		was = &old.RoleRef
	}
	binding(at, b.RoleRef, was, b.Subjects, "ClusterRole")
	return at.Errors()
}
