package rbac

import (
	"cmp"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

// segment is all that is asked of a name here, and of a prefix too: that it
// can stand in a path. Roles of components have colons in theirs.
func segment(name string, _ bool) []string { return meta.PathSegment(name, false) }

// rules checks what a role allows. URLs that are no resources are in no
// namespace, and so no matter of a role in one.
func rules(at check.At, all []rbacv1.PolicyRule, namespaced bool) {
	for i, r := range all {
		at := at.Index(i)
		if len(r.Verbs) == 0 {
			at.Dot("verbs").Required("verbs must contain at least one value")
		}
		if urls := at.Dot("nonResourceURLs"); len(r.NonResourceURLs) > 0 {
			if namespaced {
				urls.Invalid(r.NonResourceURLs, "namespaced rules cannot apply to non-resource URLs")
			}
			if len(r.APIGroups) > 0 || len(r.Resources) > 0 || len(r.ResourceNames) > 0 {
				urls.Invalid(r.NonResourceURLs, "rules cannot apply to both regular resources and non-resource URLs")
			}
			continue
		}
		if len(r.APIGroups) == 0 {
			at.Dot("apiGroups").Required("resource rules must supply at least one api group")
		}
		if len(r.Resources) == 0 {
			at.Dot("resources").Required("resource rules must supply at least one resource")
		}
	}
}

func defaultBinding(ref *rbacv1.RoleRef, subjects []rbacv1.Subject) {
	ref.APIGroup = cmp.Or(ref.APIGroup, rbacv1.GroupName)
	for i := range subjects {
		if s := &subjects[i]; s.Kind == rbacv1.UserKind || s.Kind == rbacv1.GroupKind {
			s.APIGroup = cmp.Or(s.APIGroup, rbacv1.GroupName)
		}
	}
}

// binding checks what gives a role of one of some kinds to subjects. was is
// the role it gave before, which it gives for good.
func binding(at check.At, ref rbacv1.RoleRef, was *rbacv1.RoleRef, subjects []rbacv1.Subject, kinds ...string) {
	role := at.Dot("roleRef")
	check.OneOf(role.Dot("apiGroup"), ref.APIGroup, rbacv1.GroupName)
	check.Listed(role.Dot("kind"), ref.Kind, kinds...)
	meta.Segment(role.Dot("name"), ref.Name)
	namespaced := slices.Contains(kinds, "Role")
	for i, s := range subjects {
		subject(at.Dot("subjects").Index(i), s, namespaced)
	}
	if was != nil && ref != *was {
		role.Invalid(check.Bare(ref), "cannot change roleRef")
	}
}

// subject checks who is given a role. A service account is in the namespace
// of the binding where that has one and the subject does not say.
func subject(at check.At, s rbacv1.Subject, namespaced bool) {
	named := at.Dot("name").Present(s.Name)
	switch s.Kind {
	case rbacv1.ServiceAccountKind:
		if named {
			meta.Name(at.Dot("name"), s.Name)
		}
		check.OneOf(at.Dot("apiGroup"), s.APIGroup, "")
		if !namespaced {
			at.Dot("namespace").Present(s.Namespace)
		}
	case rbacv1.UserKind, rbacv1.GroupKind:
		check.OneOf(at.Dot("apiGroup"), s.APIGroup, rbacv1.GroupName)
	default:
		check.Unsupported(at.Dot("kind"), s.Kind, rbacv1.ServiceAccountKind, rbacv1.UserKind, rbacv1.GroupKind)
	}
}
