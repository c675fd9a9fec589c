// Package clusterrole fills the cluster roles that are made of others, as
// admin and edit are, with the rules of those that their labels select.
package clusterrole

import (
	"cmp"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-dev/knarr/ctrl"
)

// Controller is the cluster role aggregation controller.
var Controller = ctrl.Controller[*rbacv1.ClusterRole, input]{
	Name:   "clusterrole-aggregation-controller",
	Reads:  []ctrl.Read{ctrl.Watch(wake)},
	Writes: []ctrl.Write{ctrl.May(&rbacv1.ClusterRole{}, ctrl.Update)},
	Gather: gather,
	Decide: decide,
}.Erase()

// wake wakes every aggregated role: any may have had, or may get, this one.
func wake(w ctrl.World, _, _ *rbacv1.ClusterRole) (keys []ctrl.Key) {
	for _, r := range ctrl.All[*rbacv1.ClusterRole](w) {
		if r.AggregationRule != nil {
			keys = append(keys, ctrl.KeyOf(r))
		}
	}
	return keys
}

type input struct {
	role  *rbacv1.ClusterRole
	parts []*rbacv1.ClusterRole
}

func gather(w ctrl.World, role *rbacv1.ClusterRole) input {
	in := input{role: role}
	if role.AggregationRule == nil {
		return in
	}
	all := ctrl.All[*rbacv1.ClusterRole](w)
	slices.SortFunc(all, func(a, b *rbacv1.ClusterRole) int { return cmp.Compare(a.Name, b.Name) })
	for i := range role.AggregationRule.ClusterRoleSelectors {
		picks := ctrl.Selector(&role.AggregationRule.ClusterRoleSelectors[i])
		for _, r := range all {
			if r.Name != role.Name && picks.Matches(labels.Set(r.Labels)) {
				in.parts = append(in.parts, r)
			}
		}
	}
	return in
}

func decide(in input) ctrl.Plan {
	if in.role.AggregationRule == nil {
		return ctrl.Plan{}
	}
	rules := []rbacv1.PolicyRule{}
	for _, part := range in.parts {
		for _, r := range part.Rules {
			if !slices.ContainsFunc(rules, func(had rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(had, r) }) {
				rules = append(rules, r)
			}
		}
	}
	if equality.Semantic.DeepEqual(rules, in.role.Rules) {
		return ctrl.Plan{}
	}
	role := in.role.DeepCopy()
	role.Rules = rules
	return ctrl.Plan{Do: []ctrl.Action{{Verb: ctrl.Update, Obj: role}}}
}
