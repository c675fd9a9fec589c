package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
)

var roles = apis.Define(apis.Resource[*rbacv1.Role]{
	Plural: "roles",
	Name:   segment,
	Validate: func(r, _ *rbacv1.Role) field.ErrorList {
		at := check.New()
		rules(at.Dot("rules"), r.Rules, true)
		return at.Errors()
	},
	Lifetime: apis.Lifetime[*rbacv1.Role]{UpsertsOnUpdate: true},
})
