package authz

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/component-helpers/auth/rbac/validation"

	"github.com/knarr-dev/knarr/registry"
)

// MayGrant returns why a user may not give others rules in a namespace, ""
// for everywhere: because they allow what the user may not do. It returns nil
// where that is not so.
func (a *RBAC) MayGrant(ctx context.Context, u *registry.User, namespace string, rules []rbacv1.PolicyRule) error {
	own := a.Rules(ctx, u, namespace)
	ok, lacking := validation.Covers(own.Rules, rules)
	if ok {
		return nil
	}
	var texts []string
	for _, r := range compact(lacking) {
		texts = append(texts, text(&r))
	}
	slices.Sort(texts)
	why := fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s",
		u.Name, u.Groups, strings.Join(slices.Compact(texts), "\n"))
	if len(own.Faults) > 0 {
		why += fmt.Sprintf("; resolution errors: %v", own.Faults)
	}
	return errors.New(why)
}

// compact joins rules, each of one verb, that are about the same objects.
func compact(rules []rbacv1.PolicyRule) (joined []rbacv1.PolicyRule) {
	for _, r := range rules {
		same := func(o rbacv1.PolicyRule) bool {
			return slices.Equal(o.APIGroups, r.APIGroups) && slices.Equal(o.Resources, r.Resources) &&
				slices.Equal(o.ResourceNames, r.ResourceNames) && len(o.NonResourceURLs)+len(r.NonResourceURLs) == 0
		}
		if i := slices.IndexFunc(joined, same); i >= 0 {
			joined[i].Verbs = append(joined[i].Verbs, r.Verbs...)
			continue
		}
		joined = append(joined, r)
	}
	return joined
}

// text is a rule as the stock server writes it.
func text(r *rbacv1.PolicyRule) string {
	var parts []string
	for _, p := range []struct {
		name   string
		values []string
	}{
		{"APIGroups", r.APIGroups},
		{"Resources", r.Resources},
		{"NonResourceURLs", r.NonResourceURLs},
		{"ResourceNames", r.ResourceNames},
		{"Verbs", r.Verbs},
	} {
		if len(p.values) > 0 {
			parts = append(parts, fmt.Sprintf("%s:%q", p.name, p.values))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}
