package authz

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/knarr-dev/knarr/registry"
)

// A ruleset is rules made ready to be looked up.
type ruleset struct {
	acts     map[act]*permit
	paths    map[path]*permit
	prefixes []prefix

	// Which wildcards occur at all, so that there are few look-ups.
	verbs, groups, resources, subs bool
}

// An act is what a rule is about; each part may be "*".
type act struct{ verb, group, resource string }

type path struct{ verb, path string }

// A prefix is paths that begin alike.
type prefix struct{ verb, path string }

// A permit tells which objects an act may be done to.
type permit struct {
	all   *role // the role that allows all of them, nil for none
	names map[string]*role
}

// compile makes the rules of roles ready.
func compile(roles ...*role) *ruleset {
	s := &ruleset{acts: map[act]*permit{}, paths: map[path]*permit{}}
	for _, r := range roles {
		for i := range r.rules {
			s.add(r, &r.rules[i])
		}
	}
	return s
}

func (s *ruleset) add(r *role, rule *rbacv1.PolicyRule) {
	for _, verb := range rule.Verbs {
		s.verbs = s.verbs || verb == rbacv1.VerbAll
		for _, group := range rule.APIGroups {
			s.groups = s.groups || group == rbacv1.APIGroupAll
			for _, resource := range rule.Resources {
				s.resources = s.resources || resource == rbacv1.ResourceAll
				s.subs = s.subs || strings.HasPrefix(resource, "*/")
				grant(s.acts, act{verb, group, resource}, r, rule.ResourceNames)
			}
		}
		for _, p := range rule.NonResourceURLs {
			if strings.HasSuffix(p, "*") {
				start := strings.TrimRight(p, "*")
				s.prefixes = append(s.prefixes, prefix{verb, start})
				p = rbacv1.NonResourceAll + start
			}
			grant(s.paths, path{verb, p}, r, nil)
		}
	}
}

func grant[K comparable](to map[K]*permit, key K, r *role, names []string) {
	p := to[key]
	if p == nil {
		p = &permit{}
		to[key] = p
	}
	if len(names) == 0 && p.all == nil {
		p.all = r
	}
	for _, name := range names {
		if p.names == nil {
			p.names = map[string]*role{}
		}
		if p.names[name] == nil {
			p.names[name] = r
		}
	}
}

// allows returns the role by which a request is allowed, nil if it is not.
func (s *ruleset) allows(r *registry.Request) *role {
	if found := s.allowsVerb(r, r.Verb); found != nil {
		return found
	}
	if s.verbs {
		return s.allowsVerb(r, rbacv1.VerbAll)
	}
	return nil
}

func (s *ruleset) allowsVerb(r *registry.Request, verb string) *role {
	if !r.Resource {
		return s.allowsPath(verb, r.Path)
	}
	if found := s.allowsGroup(r, verb, r.Group); found != nil {
		return found
	}
	if s.groups {
		return s.allowsGroup(r, verb, rbacv1.APIGroupAll)
	}
	return nil
}

func (s *ruleset) allowsGroup(r *registry.Request, verb, group string) *role {
	resource := r.Plural
	if r.Sub != "" {
		resource += "/" + r.Sub
	}
	if found := s.acts[act{verb, group, resource}].of(r.Name); found != nil {
		return found
	}
	if s.resources {
		if found := s.acts[act{verb, group, rbacv1.ResourceAll}].of(r.Name); found != nil {
			return found
		}
	}
	if s.subs && r.Sub != "" {
		return s.acts[act{verb, group, "*/" + r.Sub}].of(r.Name)
	}
	return nil
}

// of is the role that permits it for the object called name, nil for none.
func (p *permit) of(name string) *role {
	switch {
	case p == nil:
		return nil
	case p.all != nil:
		return p.all
	}
	return p.names[name]
}

func (s *ruleset) allowsPath(verb, asked string) *role {
	if found := s.paths[path{verb, asked}].of(""); found != nil {
		return found
	}
	i := slices.IndexFunc(s.prefixes, func(p prefix) bool { return p.verb == verb && strings.HasPrefix(asked, p.path) })
	if i < 0 {
		return nil
	}
	return s.paths[path{verb, rbacv1.NonResourceAll + s.prefixes[i].path}].of("")
}
