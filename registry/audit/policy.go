package audit

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	internal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/apis/audit/validation"
	"sigs.k8s.io/yaml"

	"github.com/knarr-dev/knarr/registry"
)

// A policy says how much is written down of which requests.
type policy struct{ auditv1.Policy }

// readPolicy reads a policy file, which must be valid and have rules.
func readPolicy(path string) (*policy, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read audit policy: %w", err)
	}
	p := &policy{}
	if err := yaml.UnmarshalStrict(text, &p.Policy); err != nil {
		return nil, fmt.Errorf("read audit policy %s: %w", path, err)
	}
	if p.Kind != "Policy" || p.APIVersion != auditv1.SchemeGroupVersion.String() {
		return nil, fmt.Errorf("read audit policy %s: it is a %q of %q, not a Policy of %s", path, p.Kind, p.APIVersion, auditv1.SchemeGroupVersion)
	}
	var checked internal.Policy
	if err := auditv1.Convert_v1_Policy_To_audit_Policy(&p.Policy, &checked, nil); err != nil {
		return nil, fmt.Errorf("read audit policy %s: %w", path, err)
	}
	if errs := validation.ValidatePolicy(&checked); len(errs) > 0 {
		return nil, fmt.Errorf("read audit policy %s: %w", path, errs.ToAggregate())
	}
	if len(p.Rules) == 0 {
		return nil, fmt.Errorf("read audit policy %s: %w", path, errors.New("it has no rules"))
	}
	return p, nil
}

// A verdict is how much is written down of a request.
type verdict struct {
	level  auditv1.Level
	omit   []auditv1.Stage
	fields bool // managed fields are left out
}

// of is the verdict of the first rule about a request; nothing is written
// down of one that there is none about.
func (p *policy) of(r *registry.Request) verdict {
	for i := range p.Rules {
		rule := &p.Rules[i]
		if !matches(rule, r) {
			continue
		}
		v := verdict{rule.Level, slices.Concat(p.OmitStages, rule.OmitStages), p.OmitManagedFields}
		if rule.OmitManagedFields != nil {
			v.fields = *rule.OmitManagedFields
		}
		return v
	}
	return verdict{level: auditv1.LevelNone}
}

func matches(rule *auditv1.PolicyRule, r *registry.Request) bool {
	switch {
	case len(rule.Users) > 0 && !slices.Contains(rule.Users, r.User.Name),
		len(rule.UserGroups) > 0 && !slices.ContainsFunc(rule.UserGroups, r.User.In),
		len(rule.Verbs) > 0 && !slices.Contains(rule.Verbs, r.Verb):
		return false
	case len(rule.Namespaces) > 0 || len(rule.Resources) > 0:
		return r.Resource && (len(rule.Namespaces) == 0 || slices.Contains(rule.Namespaces, r.Namespace)) &&
			(len(rule.Resources) == 0 || slices.ContainsFunc(rule.Resources, func(g auditv1.GroupResources) bool { return among(&g, r) }))
	case len(rule.NonResourceURLs) > 0:
		return !r.Resource && slices.ContainsFunc(rule.NonResourceURLs, func(url string) bool { return below(r.Path, url) })
	}
	return true
}

func below(path, url string) bool {
	start, open := strings.CutSuffix(url, "*")
	return path == url || open && strings.HasPrefix(path, strings.TrimRight(start, "*"))
}

// among reports whether a request is for one of the resources of a group.
func among(g *auditv1.GroupResources, r *registry.Request) bool {
	if g.Group != r.Group && g.Group != "*" {
		return false
	}
	if len(g.Resources) == 0 {
		return true
	}
	if len(g.ResourceNames) > 0 && !slices.Contains(g.ResourceNames, r.Name) {
		return false
	}
	whole := r.Plural
	if r.Sub != "" {
		whole += "/" + r.Sub
	}
	return slices.ContainsFunc(g.Resources, func(name string) bool {
		return name == whole || name == "*" || r.Sub != "" && name == "*/"+r.Sub || name == r.Plural+"/*"
	})
}
