// Package authz decides who may do what: by the rules of roles, kept ready
// to be looked up, and for nodes by what the pods on them need. Who somebody
// is has been found out before, by package authn.
package authz

import (
	"context"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/knarr-dev/knarr/registry"
)

// An Authorizer says whether a request may be done, and by whose leave or,
// as far as there is something to say, why not.
type Authorizer interface {
	Allows(ctx context.Context, r *registry.Request) (ok bool, why string)

	// Rules lists what a user may do in a namespace.
	Rules(ctx context.Context, u *registry.User, namespace string) Rules
}

// Rules are what somebody may do, as far as that can be listed.
type Rules struct {
	Rules      []rbacv1.PolicyRule
	Incomplete bool
	Faults     []string // what was in the way
}

// A Union lets a request through that one of its members does.
type Union []Authorizer

// Allows is part of Authorizer.
func (u Union) Allows(ctx context.Context, r *registry.Request) (bool, string) {
	var reasons []string
	for _, a := range u {
		ok, why := a.Allows(ctx, r)
		if ok {
			return true, why
		}
		if why != "" {
			reasons = append(reasons, why)
		}
	}
	return false, strings.Join(reasons, "\n")
}

// Rules is part of Authorizer.
func (u Union) Rules(ctx context.Context, user *registry.User, namespace string) (all Rules) {
	for _, a := range u {
		r := a.Rules(ctx, user, namespace)
		all.Rules = append(all.Rules, r.Rules...)
		all.Incomplete = all.Incomplete || r.Incomplete
		all.Faults = append(all.Faults, r.Faults...)
	}
	return all
}

// Masters may do everything: who is among them runs the cluster.
type Masters struct{}

// Allows is part of Authorizer.
func (Masters) Allows(_ context.Context, r *registry.Request) (bool, string) {
	return r.User.In(registry.SystemMasters), ""
}

// Rules is part of Authorizer. Roles say the same of the masters.
func (Masters) Rules(context.Context, *registry.User, string) Rules { return Rules{} }

// Always lets everything through.
type Always struct{}

// Allows is part of Authorizer.
func (Always) Allows(context.Context, *registry.Request) (bool, string) { return true, "" }

// Rules is part of Authorizer.
func (Always) Rules(context.Context, *registry.User, string) Rules {
	all := []string{rbacv1.VerbAll}
	return Rules{Rules: []rbacv1.PolicyRule{{Verbs: all, APIGroups: all, Resources: all}, {Verbs: all, NonResourceURLs: all}}}
}
