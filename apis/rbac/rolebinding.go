package rbac

import (
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
)

var roleBindings = apis.Define(apis.Resource[*rbacv1.RoleBinding]{
	Plural: "rolebindings",

	Name:     segment,
	Default:  func(b *rbacv1.RoleBinding) { defaultBinding(&b.RoleRef, b.Subjects) },
	Validate: validateRoleBinding,

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

func validateRoleBinding(b, old *rbacv1.RoleBinding) field.ErrorList {
	at := check.New()
	var was *rbacv1.RoleRef
	if old != nil {
		was = &old.RoleRef
	}
	binding(at, b.RoleRef, was, b.Subjects, "Role", "ClusterRole")
	return at.Errors()
}
