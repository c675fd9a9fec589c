package authz

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/cache"
)

// Kinds are the kinds of rbac.authorization.k8s.io.
type Kinds struct{ ClusterRoles, ClusterRoleBindings, Roles, RoleBindings *cache.Kind }

// RBAC allows what roles say that are bound to the user or the user's groups.
// It knows the roles and bindings that the cache has at the moment.
type RBAC struct {
	// Await waits until the cache has what this server has written of the
	// given kinds; nil where nobody minds.
	Await func(ctx context.Context, kinds ...schema.GroupResource) error

	kinds followers

	mu       sync.RWMutex
	roles    map[id]*role
	bindings map[id]*binding
	users    map[id]map[*binding]struct{}      // of a role, whether or not it is there
	held     map[subject]map[*binding]struct{} // by whom it is bound to
	ready    map[subject]*holding              // what has been asked for, made ready
}

// An id names a role or a binding; those of the cluster are in no namespace.
type id struct{ namespace, name string }

// A role is rules under a name.
type role struct {
	id

	rules []rbacv1.PolicyRule
	set   *ruleset
}

// A binding gives a role to subjects, in its namespace or everywhere.
type binding struct {
	id

	ref      rbacv1.RoleRef
	subjects []rbacv1.Subject
}

// A subject is who a role is bound to in a namespace, "" for everywhere.
type subject struct {
	namespace string
	group     bool
	name      string
}

// A holding is what a subject may do.
type holding struct {
	sets    []*ruleset
	by      map[*role]*binding
	missing []string // roles that are bound and not there
}

// manySets is how many roles of a subject are looked up one by one; more are
// made one set of rules.
const manySets = 8

// groupName is the group of roles.
const groupName = rbacv1.GroupName

// roleKinds are what RBAC goes by.
var roleKinds = []schema.GroupResource{
	{Group: groupName, Resource: "clusterroles"},
	{Group: groupName, Resource: "clusterrolebindings"},
	{Group: groupName, Resource: "roles"},
	{Group: groupName, Resource: "rolebindings"},
}

// NewRBAC returns an authorizer that goes by the objects of kinds. It must
// not be asked before the cache is loaded.
func NewRBAC(k Kinds) *RBAC {
	a := &RBAC{
		roles: map[id]*role{}, bindings: map[id]*binding{}, users: map[id]map[*binding]struct{}{},
		held: map[subject]map[*binding]struct{}{}, ready: map[subject]*holding{},
	}
	a.kinds = followers{
		a.followRoles(k.ClusterRoles, true), a.followRoles(k.Roles, false),
		a.followBindings(k.ClusterRoleBindings, true), a.followBindings(k.RoleBindings, false),
	}
	return a
}

func (a *RBAC) followRoles(k *cache.Kind, cluster bool) *follower {
	return &follower{
		kind: k,
		put: func(o *cache.Object) error {
			obj, err := o.Decode()
			if err != nil {
				return err
			}
			switch r := obj.(type) {
			case *rbacv1.ClusterRole:
				a.putRole(id{"", r.Name}, r.Rules)
			case *rbacv1.Role:
				a.putRole(id{r.Namespace, r.Name}, r.Rules)
			}
			return nil
		},
		drop: func(o *cache.Object) { a.dropRole(id{o.Namespace(), o.Name()}) },
		wipe: func() {
			for i := range a.roles {
				if (i.namespace == "") == cluster {
					a.dropRole(i)
				}
			}
		},
	}
}

func (a *RBAC) followBindings(k *cache.Kind, cluster bool) *follower {
	return &follower{
		kind: k,
		put: func(o *cache.Object) error {
			obj, err := o.Decode()
			if err != nil {
				return err
			}
			switch b := obj.(type) {
			case *rbacv1.ClusterRoleBinding:
				a.putBinding(&binding{id{"", b.Name}, b.RoleRef, b.Subjects})
			case *rbacv1.RoleBinding:
				a.putBinding(&binding{id{b.Namespace, b.Name}, b.RoleRef, b.Subjects})
			}
			return nil
		},
		drop: func(o *cache.Object) { a.dropBinding(id{o.Namespace(), o.Name()}) },
		wipe: func() {
			for i := range a.bindings {
				if (i.namespace == "") == cluster {
					a.dropBinding(i)
				}
			}
		},
	}
}

func (a *RBAC) putRole(i id, rules []rbacv1.PolicyRule) {
	r := &role{id: i, rules: rules}
	r.set = compile(r)
	a.roles[i] = r
	a.stale(i)
}

func (a *RBAC) dropRole(i id) {
	delete(a.roles, i)
	a.stale(i)
}

// stale forgets what was made ready with a role that has changed.
func (a *RBAC) stale(i id) {
	for b := range a.users[i] {
		for _, s := range b.bound() {
			delete(a.ready, s)
		}
	}
}

func (a *RBAC) putBinding(b *binding) {
	a.dropBinding(b.id)
	a.bindings[b.id] = b
	into(a.users, b.role(), b)
	for _, s := range b.bound() {
		into(a.held, s, b)
		delete(a.ready, s)
	}
}

func (a *RBAC) dropBinding(i id) {
	b := a.bindings[i]
	if b == nil {
		return
	}
	delete(a.bindings, i)
	outOf(a.users, b.role(), b)
	for _, s := range b.bound() {
		outOf(a.held, s, b)
		delete(a.ready, s)
	}
}

func into[K comparable](index map[K]map[*binding]struct{}, key K, b *binding) {
	if index[key] == nil {
		index[key] = map[*binding]struct{}{}
	}
	index[key][b] = struct{}{}
}

func outOf[K comparable](index map[K]map[*binding]struct{}, key K, b *binding) {
	delete(index[key], b)
	if len(index[key]) == 0 {
		delete(index, key)
	}
}

// role is the role that b binds.
func (b *binding) role() id { return refID(b.ref, b.namespace) }

// refID is the role that a binding in a namespace refers to.
func refID(ref rbacv1.RoleRef, namespace string) id {
	if ref.Kind == "ClusterRole" {
		return id{"", ref.Name}
	}
	return id{namespace, ref.Name}
}

// bound are the subjects of b.
func (b *binding) bound() (all []subject) {
	for i := range b.subjects {
		s, ok := b.subject(&b.subjects[i])
		if ok {
			all = append(all, s)
		}
	}
	return all
}

func (b *binding) subject(s *rbacv1.Subject) (subject, bool) {
	switch s.Kind {
	case rbacv1.UserKind:
		return subject{b.namespace, false, s.Name}, true
	case rbacv1.GroupKind:
		return subject{b.namespace, true, s.Name}, true
	case rbacv1.ServiceAccountKind:
		ns := s.Namespace
		if ns == "" {
			ns = b.namespace
		}
		return subject{b.namespace, false, "system:serviceaccount:" + ns + ":" + s.Name}, ns != ""
	}
	return subject{}, false
}

// current brings everything up to what the cache has.
func (a *RBAC) current(ctx context.Context) {
	if a.Await != nil {
		if err := a.Await(ctx, roleKinds...); err != nil {
			slog.WarnContext(ctx, "wait for roles", "err", err)
		}
	}
	if !a.behind() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.kinds.catchUp(ctx); err != nil {
		slog.ErrorContext(ctx, "read roles", "err", err)
	}
}

func (a *RBAC) behind() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.kinds.behind()
}

// Allows is part of Authorizer.
func (a *RBAC) Allows(ctx context.Context, r *registry.Request) (bool, string) {
	a.current(ctx)
	var missing []string
	for s := range subjects(&r.User, r.Namespace) {
		h := a.holding(s)
		if h == nil {
			continue
		}
		for _, set := range h.sets {
			if found := set.allows(r); found != nil {
				return true, "RBAC: allowed by " + describe(h.by[found], s)
			}
		}
		missing = append(missing, h.missing...)
	}
	if len(missing) == 0 {
		return false, ""
	}
	slices.Sort(missing)
	missing = slices.Compact(missing)
	if len(missing) == 1 {
		return false, "RBAC: " + missing[0]
	}
	return false, "RBAC: [" + strings.Join(missing, ", ") + "]"
}

// subjects are what a user is to bindings: for the cluster, and in a namespace.
func subjects(u *registry.User, namespace string) func(yield func(subject) bool) {
	scopes := []string{"", namespace}
	if namespace == "" {
		scopes = scopes[:1]
	}
	return func(yield func(subject) bool) {
		for _, ns := range scopes {
			if !yield(subject{ns, false, u.Name}) {
				return
			}
			for _, g := range u.Groups {
				if !yield(subject{ns, true, g}) {
					return
				}
			}
		}
	}
}

// holding is what a subject holds, nil for nothing.
func (a *RBAC) holding(s subject) *holding {
	a.mu.RLock()
	h, some := a.ready[s], len(a.held[s]) > 0
	a.mu.RUnlock()
	if h != nil || !some {
		return h
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if h = a.gather(s); len(h.by)+len(h.missing) > 0 {
		a.ready[s] = h
	}
	return h
}

// gather makes ready what a subject holds. The caller holds mu.
func (a *RBAC) gather(s subject) *holding {
	h := &holding{by: map[*role]*binding{}}
	var roles []*role
	for b := range a.held[s] {
		r := a.roles[b.role()]
		switch {
		case r == nil:
			h.missing = append(h.missing, absent(b.ref))
		case h.by[r] == nil:
			h.by[r] = b
			roles = append(roles, r)
		case b.name < h.by[r].name:
			h.by[r] = b
		}
	}
	slices.SortFunc(roles, func(x, y *role) int { return strings.Compare(h.by[x].name, h.by[y].name) })
	if len(roles) > manySets {
		h.sets = []*ruleset{compile(roles...)}
		return h
	}
	for _, r := range roles {
		h.sets = append(h.sets, r.set)
	}
	return h
}

// absent tells of a role that is not there.
func absent(ref rbacv1.RoleRef) string {
	return fmt.Sprintf("%s.%s %q not found", strings.ToLower(ref.Kind), groupName, ref.Name)
}

// describe names a binding by which a subject is allowed something.
func describe(b *binding, s subject) string {
	kind, name := "ClusterRoleBinding", b.name
	if b.namespace != "" {
		kind, name = "RoleBinding", b.name+"/"+b.namespace
	}
	who := ""
	for i := range b.subjects {
		if as, ok := b.subject(&b.subjects[i]); ok && as == s {
			who = named(&b.subjects[i], b.namespace)
			break
		}
	}
	return fmt.Sprintf("%s %q of %s %q to %s", kind, name, b.ref.Kind, b.ref.Name, who)
}

func named(s *rbacv1.Subject, namespace string) string {
	if s.Kind != rbacv1.ServiceAccountKind {
		return fmt.Sprintf("%s %q", s.Kind, s.Name)
	}
	if s.Namespace != "" {
		namespace = s.Namespace
	}
	return fmt.Sprintf("%s %q", s.Kind, s.Name+"/"+namespace)
}

// Rules is part of Authorizer.
func (a *RBAC) Rules(ctx context.Context, u *registry.User, namespace string) (all Rules) {
	a.current(ctx)
	for s := range subjects(u, namespace) {
		h := a.holding(s)
		if h == nil {
			continue
		}
		all.Faults = append(all.Faults, h.missing...)
		roles := make([]*role, 0, len(h.by))
		for r := range h.by {
			roles = append(roles, r)
		}
		slices.SortFunc(roles, func(x, y *role) int { return strings.Compare(h.by[x].name, h.by[y].name) })
		for _, r := range roles {
			all.Rules = append(all.Rules, r.rules...)
		}
	}
	return all
}

// RulesOf returns the rules of the role that a binding in a namespace refers
// to, and false where it is not there.
func (a *RBAC) RulesOf(ctx context.Context, ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, bool) {
	a.current(ctx)
	a.mu.RLock()
	defer a.mu.RUnlock()
	r := a.roles[refID(ref, namespace)]
	if r == nil {
		return nil, false
	}
	return r.rules, true
}

// Close ends the following of roles and bindings.
func (a *RBAC) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kinds.close()
}
