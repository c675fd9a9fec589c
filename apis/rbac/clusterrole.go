package rbac

import (
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

var clusterRoles = apis.Define(apis.Resource[*rbacv1.ClusterRole]{
	Plural:   "clusterroles",
	Scope:    apis.Cluster,
	Name:     segment,
	Validate: validateClusterRole,
	Lifetime: apis.Lifetime[*rbacv1.ClusterRole]{UpsertsOnUpdate: true},
})

func validateClusterRole(r, old *rbacv1.ClusterRole) field.ErrorList {
	at := check.New()
	rules(at.Dot("rules"), r.Rules, false)
	if r.AggregationRule == nil {
		return at.Errors()
	}
	selectors := at.Dot("aggregationRule.clusterRoleSelectors")
	if len(r.AggregationRule.ClusterRoleSelectors) == 0 {
		selectors.Required("at least one clusterRoleSelector required if aggregationRule is non-nil")
	}
	lenient := old != nil && old.AggregationRule != nil &&
		slices.ContainsFunc(old.AggregationRule.ClusterRoleSelectors, func(s metav1.LabelSelector) bool { return meta.Odd(&s) })
	for i, s := range r.AggregationRule.ClusterRoleSelectors {
		meta.Selector(selectors.Index(i), &s, lenient)
		if _, err := metav1.LabelSelectorAsSelector(&s); err != nil {
			selectors.Index(i).Invalid(nil, "invalid label selector.")
		}
	}
	return at.Errors()
}
