// Package match says which requests a webhook or a policy is asked about, and
// how they look to it: by rules, by selectors, in which version, and by
// conditions in CEL. It calls nobody and refuses nothing; who asks does.
package match

import (
	"context"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/admit"
	"github.com/knarr-dev/knarr/registry/rest"
)

// A Criteria says which requests are meant. Use New. It never changes.
type Criteria struct {
	rules, except       []admissionregistrationv1.NamedRuleWithOperations
	equivalent          bool
	namespaces, objects labels.Selector
}

// New reads what is meant. Without rules it is everything that is not excepted.
func New(m *admissionregistrationv1.MatchResources) (*Criteria, error) {
	c := &Criteria{
		rules: m.ResourceRules, except: m.ExcludeResourceRules,
		equivalent: m.MatchPolicy == nil || *m.MatchPolicy == admissionregistrationv1.Equivalent,
	}
	var err error
	if c.namespaces, err = selector(m.NamespaceSelector); err != nil {
		return nil, err
	}
	c.objects, err = selector(m.ObjectSelector)
	return c, err
}

// selector is everything where none is given.
func selector(s *metav1.LabelSelector) (labels.Selector, error) {
	if s == nil {
		return labels.Everything(), nil
	}
	return metav1.LabelSelectorAsSelector(s)
}

// exempt are the kinds that nobody is asked about, lest nobody could undo
// what keeps everybody out.
var exempt = []string{
	"validatingwebhookconfigurations", "mutatingwebhookconfigurations", "validatingadmissionpolicies", "validatingadmissionpolicybindings",
	"mutatingadmissionpolicies", "mutatingadmissionpolicybindings",
}

// Exempt reports whether nobody is asked about the request.
func Exempt(r *admit.Request) bool {
	return r.Kind.Group == admissionregistrationv1.GroupName && slices.Contains(exempt, r.Kind.Plural)
}

// Own reports whether no client has asked for a write, but the server itself:
// nobody is asked about it, lest a server could not start because of who only
// runs once it does.
func Own(ctx context.Context) bool { return registry.RequestOf(ctx).Path == "" }

// An As is what a request is meant as: in the version that a rule names,
// which may be another than the client's.
type As struct {
	Resource schema.GroupVersionResource
	Kind     schema.GroupVersionKind

	form *rest.Form // nil where it is the client's
}

// Match tells as what a request is meant, nil where it is not. What cannot be
// told is an error only of a request that rules mean.
func (c *Criteria) Match(ctx context.Context, svc *rest.Service, w admit.World, r *admit.Request) (*As, error) {
	in, unknown := c.inNamespace(ctx, w, r)
	if !in && unknown == nil || !c.selects(r) {
		return nil, nil
	}
	if found := c.find(c.except, svc, r); found != nil {
		return nil, nil
	}
	as := &As{Resource: r.Resource, Kind: r.Sent}
	if len(c.rules) > 0 {
		if as = c.find(c.rules, svc, r); as == nil {
			return nil, nil
		}
	}
	if unknown != nil {
		return nil, unknown
	}
	return as, nil
}

// inNamespace reports whether the request is in a namespace that is meant, or
// in none.
func (c *Criteria) inNamespace(ctx context.Context, w admit.World, r *admit.Request) (bool, error) {
	itself := r.Kind.Group == "" && r.Kind.Plural == "namespaces"
	if c.namespaces.Empty() || r.Namespace == "" && !itself {
		return true, nil
	}
	if itself && r.Sub == "" && r.Object != nil {
		return c.namespaces.Matches(labels.Set(r.Object.GetLabels())), nil
	}
	ns, err := w.Lookup(ctx, schema.GroupResource{Resource: "namespaces"}, "", namespaceOf(r))
	switch {
	case apierrors.IsNotFound(err):
		return false, err
	case err != nil:
		return false, apierrors.NewInternalError(err)
	}
	return c.namespaces.Matches(labels.Set(ns.GetLabels())), nil
}

// namespaceOf is where the request is; one for a namespace is in it.
func namespaceOf(r *admit.Request) string {
	if r.Kind.Group == "" && r.Kind.Plural == "namespaces" {
		return nameOf(r)
	}
	return r.Namespace
}

// nameOf is the name of the request's object, which may have none yet.
func nameOf(r *admit.Request) string {
	if r.Name == "" && r.Object != nil {
		return r.Object.GetName()
	}
	return r.Name
}

// selects reports whether the object is meant, as it was or as it is to be.
func (c *Criteria) selects(r *admit.Request) bool {
	if c.objects.Empty() {
		return true
	}
	for _, obj := range []apis.Object{r.Object, r.Old} {
		if obj == nil {
			continue
		}
		set := labels.Set(obj.GetLabels())
		if r.Sub == "scale" {
			set = nil // a Scale has none
		}
		if c.objects.Matches(set) {
			return true
		}
	}
	return false
}

// find is what the first rule that fits has a request as. Rules that fit it as
// it is come before those that fit what it might as well be.
func (c *Criteria) find(rules []admissionregistrationv1.NamedRuleWithOperations, svc *rest.Service, r *admit.Request) *As {
	for i := range rules {
		if fits(&rules[i], r, r.Resource) {
			return &As{Resource: r.Resource, Kind: r.Sent}
		}
	}
	if !c.equivalent || len(rules) == 0 {
		return nil
	}
	forms := svc.Versions(r.Kind.GroupResource())
	for i := range rules {
		for _, f := range forms {
			gvk := f.Wire.GroupVersionKind
			gvr := gvk.GroupVersion().WithResource(f.Plural)
			if gvr == r.Resource || !fits(&rules[i], r, gvr) {
				continue
			}
			as := &As{Resource: gvr, Kind: gvk, form: f}
			if r.Sent.GroupVersion() != r.Resource.GroupVersion() || r.Sent.Kind != gvk.Kind {
				as.Kind, as.form = r.Sent, nil // a subresource's, which is the same in all versions
			}
			return as
		}
	}
	return nil
}

// fits reports whether a rule means a request for gvr.
func fits(rule *admissionregistrationv1.NamedRuleWithOperations, r *admit.Request, gvr schema.GroupVersionResource) bool {
	operation := func(op admissionregistrationv1.OperationType) bool {
		return op == admissionregistrationv1.OperationAll || string(op) == string(r.Operation)
	}
	resource := func(text string) bool {
		plural, sub, _ := strings.Cut(text, "/")
		return (plural == "*" || plural == gvr.Resource) && (sub == "*" || sub == r.Sub)
	}
	return slices.ContainsFunc(rule.Operations, operation) && named(rule.APIGroups, gvr.Group) && named(rule.APIVersions, gvr.Version) &&
		slices.ContainsFunc(rule.Resources, resource) && scoped(rule.Scope, r) &&
		(len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, nameOf(r)))
}

func named(list []string, name string) bool {
	return slices.Contains(list, "*") || slices.Contains(list, name)
}

// scoped reports whether a request is in the scope. Namespaces lie in none.
func scoped(scope *admissionregistrationv1.ScopeType, r *admit.Request) bool {
	if scope == nil || *scope == admissionregistrationv1.AllScopes {
		return true
	}
	cluster := r.Namespace == "" || r.Kind.Group == "" && r.Kind.Plural == "namespaces"
	return cluster == (*scope == admissionregistrationv1.ClusterScope)
}
