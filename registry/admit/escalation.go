package admit

import (
	"context"
	"errors"

	rbacv1 "k8s.io/api/rbac/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
)

// escalation keeps users from giving, to themselves or others, what they may
// not do themselves. It is no plugin of the stock server's but part of it.
func escalation(cfg Config) Plugin {
	return Plugin{Name: "Escalation", Mutate: func(ctx context.Context, _ World, r *Request) error {
		if r.Kind.Group != rbacv1.GroupName || r.Operation != Create && r.Operation != Update || r.User.In(registry.SystemMasters) {
			return nil
		}
		if r.Operation == Update && onlyForCollection(r.Object, r.Old) {
			return nil
		}
		switch obj := r.Object.(type) {
		case *rbacv1.Role:
			return roleGrant(ctx, cfg, r, obj.Rules)
		case *rbacv1.ClusterRole:
			return clusterRoleGrant(ctx, cfg, r, obj)
		case *rbacv1.RoleBinding:
			return bindingGrant(ctx, cfg, r, obj.RoleRef)
		case *rbacv1.ClusterRoleBinding:
			return bindingGrant(ctx, cfg, r, obj.RoleRef)
		}
		return nil
	}}
}

// onlyForCollection reports whether nothing changes but what the collector of
// garbage goes by.
func onlyForCollection(obj, old apis.Object) bool {
	same := obj.DeepCopyObject().(apis.Object)
	same.SetOwnerReferences(old.GetOwnerReferences())
	same.SetFinalizers(old.GetFinalizers())
	same.SetManagedFields(old.GetManagedFields())
	same.GetObjectKind().SetGroupVersionKind(old.GetObjectKind().GroupVersionKind())
	return apiequality.Semantic.DeepEqual(same, old)
}

// explicitly reports whether the user is expressly allowed to do what else
// would have to be held.
func explicitly(ctx context.Context, cfg Config, r *Request, verb, plural, name string) bool {
	return cfg.May(ctx, &registry.Request{
		User: r.User, Verb: verb, Resource: true, Group: rbacv1.GroupName, Version: "*", Plural: plural, Name: name, Namespace: r.Namespace,
	})
}

func roleGrant(ctx context.Context, cfg Config, r *Request, rules []rbacv1.PolicyRule) error {
	if explicitly(ctx, cfg, r, "escalate", r.Kind.Plural, r.Name) {
		return nil
	}
	if err := cfg.Roles.MayGrant(ctx, &r.User, r.Namespace, rules); err != nil {
		return forbidFor(r, err)
	}
	return nil
}

// everything is what who gathers other roles' rules could come to hold.
var everything = []rbacv1.PolicyRule{
	{Verbs: []string{rbacv1.VerbAll}, APIGroups: []string{rbacv1.APIGroupAll}, Resources: []string{rbacv1.ResourceAll}},
	{Verbs: []string{rbacv1.VerbAll}, NonResourceURLs: []string{rbacv1.NonResourceAll}},
}

func clusterRoleGrant(ctx context.Context, cfg Config, r *Request, role *rbacv1.ClusterRole) error {
	if err := roleGrant(ctx, cfg, r, role.Rules); err != nil {
		return err
	}
	old, _ := r.Old.(*rbacv1.ClusterRole)
	if !gathers(role) && (old == nil || !gathers(old)) || explicitly(ctx, cfg, r, "escalate", r.Kind.Plural, r.Name) {
		return nil
	}
	if cfg.Roles.MayGrant(ctx, &r.User, "", everything) != nil {
		return forbidFor(r, errors.New("must have cluster-admin privileges to use the aggregationRule"))
	}
	return nil
}

func gathers(role *rbacv1.ClusterRole) bool {
	return role.AggregationRule != nil && len(role.AggregationRule.ClusterRoleSelectors) > 0
}

func bindingGrant(ctx context.Context, cfg Config, r *Request, ref rbacv1.RoleRef) error {
	plural := map[string]string{"ClusterRole": "clusterroles", "Role": "roles"}[ref.Kind]
	if plural != "" && explicitly(ctx, cfg, r, "bind", plural, ref.Name) {
		return nil
	}
	rules, ok := cfg.Roles.RulesOf(ctx, ref, r.Namespace)
	if !ok && plural != "" {
		// As upstream: here the role is called by the binding's kind.
		return apierrors.NewNotFound(r.Kind.GroupResource(), ref.Name)
	}
	if err := cfg.Roles.MayGrant(ctx, &r.User, r.Namespace, rules); err != nil {
		return forbidFor(r, err)
	}
	return nil
}
