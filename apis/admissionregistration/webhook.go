package admissionregistration

import (
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apiserver/pkg/util/webhook"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

func defaultWebhook(h *admissionregistrationv1.ValidatingWebhook) {
	if h.FailurePolicy == nil {
		h.FailurePolicy = new(admissionregistrationv1.Fail)
	}
	if h.MatchPolicy == nil {
		h.MatchPolicy = new(admissionregistrationv1.Equivalent)
	}
	if h.NamespaceSelector == nil {
		h.NamespaceSelector = &metav1.LabelSelector{}
	}
	if h.ObjectSelector == nil {
		h.ObjectSelector = &metav1.LabelSelector{}
	}
	if h.TimeoutSeconds == nil {
		h.TimeoutSeconds = new(int32(10))
	}
	if s := h.ClientConfig.Service; s != nil && s.Port == nil {
		s.Port = new(int32(443))
	}
	for i := range h.Rules {
		defaultRule(&h.Rules[i].Rule)
	}
}

func defaultRule(r *admissionregistrationv1.Rule) {
	if r.Scope == nil {
		r.Scope = new(admissionregistrationv1.AllScopes)
	}
}

// reviews are the versions of AdmissionReview that are spoken here.
var reviews = []string{"v1", "v1beta1"}

// A leniency is what stored webhooks had wrong, and those in their place may
// have wrong too.
type leniency struct {
	effects, versions, names, selectors, conditions bool
	expressions                                     check.Set[string] // that were stored
}

func lenient(now, was []admissionregistrationv1.ValidatingWebhook) leniency {
	l := leniency{expressions: check.Set[string]{}, conditions: len(now) == len(was)}
	names := check.Set[string]{}
	for i, h := range was {
		l.effects = l.effects || h.SideEffects == nil || !slices.Contains(harmless, *h.SideEffects)
		l.versions = l.versions || len(h.AdmissionReviewVersions) > 0 && !slices.ContainsFunc(h.AdmissionReviewVersions, spoken)
		l.names = l.names || names.Twice(h.Name)
		l.selectors = l.selectors || h.NamespaceSelector != nil && meta.Odd(h.NamespaceSelector) || h.ObjectSelector != nil && meta.Odd(h.ObjectSelector)
		l.conditions = l.conditions && equality.Semantic.DeepEqual(now[i].MatchConditions, h.MatchConditions)
		for _, c := range h.MatchConditions {
			l.expressions[c.Expression] = true
		}
	}
	return l
}

func spoken(version string) bool { return slices.Contains(reviews, version) }

// webhooks checks the webhooks of a configuration, which had others before
// where it is stored; more checks what else there is to each.
func webhooks(at check.At, now, was []admissionregistrationv1.ValidatingWebhook, stored bool, more func(at check.At, i int)) {
	var l leniency
	if stored {
		l = lenient(now, was)
	}
	names := check.Set[string]{}
	for i := range now {
		h, at := &now[i], at.Index(i)
		oneWebhook(at, h, &l)
		more(at, i)
		reviewVersions(at.Dot("admissionReviewVersions"), h.AdmissionReviewVersions, l.versions)
		if h.Name != "" && names.Twice(h.Name) && !l.names {
			at.Dot("name").Duplicate(h.Name)
		}
	}
}

var harmless = []admissionregistrationv1.SideEffectClass{admissionregistrationv1.SideEffectClassNone, admissionregistrationv1.SideEffectClassNoneOnDryRun}

func oneWebhook(at check.At, h *admissionregistrationv1.ValidatingWebhook, l *leniency) {
	at.Add(utilvalidation.IsFullyQualifiedName(at.Dot("name").Path(), h.Name)...)
	for i := range h.Rules {
		rule(at.Dot("rules").Index(i), &h.Rules[i], everyOperation)
	}
	failurePolicy(at.Dot("failurePolicy"), h.FailurePolicy)
	matchPolicy(at.Dot("matchPolicy"), h.MatchPolicy)
	effects := harmless
	if l.effects {
		effects = append([]admissionregistrationv1.SideEffectClass{
			admissionregistrationv1.SideEffectClassSome, admissionregistrationv1.SideEffectClassUnknown,
		}, harmless...)
	}
	if h.SideEffects != nil {
		check.OneOf(at.Dot("sideEffects"), *h.SideEffects, effects...)
	} else {
		names := make([]string, len(effects))
		for i, e := range effects {
			names[i] = string(e)
		}
		slices.Sort(names)
		at.Dot("sideEffects").Required("must specify one of " + strings.Join(names, ", "))
	}
	if t := h.TimeoutSeconds; t != nil && (*t > 30 || *t < 1) {
		at.Dot("timeoutSeconds").Invalid(*t, "the timeout value must be between 1 and 30 seconds")
	}
	if h.NamespaceSelector != nil {
		meta.Selector(at.Dot("namespaceSelector"), h.NamespaceSelector, l.selectors)
	}
	if h.ObjectSelector != nil {
		meta.Selector(at.Dot("objectSelector"), h.ObjectSelector, l.selectors)
	}
	switch at, c := at.Dot("clientConfig"), h.ClientConfig; {
	case (c.URL == nil) == (c.Service == nil):
		at.Required("exactly one of url or service is required")
	case c.URL != nil:
		at.Add(webhook.ValidateWebhookURL(at.Dot("url").Path(), *c.URL, true)...)
	default:
		s, port := c.Service, int32(443)
		if s.Port != nil {
			port = *s.Port
		}
		// As upstream: a missing name is said to be a missing namespace, and the other way.
		at.Add(webhook.ValidateWebhookService(at.Dot("service").Path(), s.Name, s.Namespace, s.Path, port)...)
	}
	if !l.conditions {
		matchConditions(at.Dot("matchConditions"), h.MatchConditions, false, l.expressions)
	}
}

func failurePolicy(at check.At, p *admissionregistrationv1.FailurePolicyType) {
	if p != nil {
		check.OneOf(at, *p, admissionregistrationv1.Fail, admissionregistrationv1.Ignore)
	}
}

func matchPolicy(at check.At, p *admissionregistrationv1.MatchPolicyType) {
	if p != nil {
		check.OneOf(at, *p, admissionregistrationv1.Exact, admissionregistrationv1.Equivalent)
	}
}

func reviewVersions(at check.At, versions []string, lenient bool) {
	if len(versions) == 0 {
		at.Required("must specify one of " + strings.Join(reviews, ", "))
		return
	}
	known := false
	seen := check.Set[string]{}
	for i, v := range versions {
		if seen.Twice(v) {
			at.Index(i).Invalid(v, "duplicate version")
			continue
		}
		at.Index(i).Wrong(v, utilvalidation.IsDNS1035Label(v))
		known = known || spoken(v)
	}
	if !known && !lenient {
		at.Invalid(versions, "must include at least one of "+strings.Join(reviews, ", "))
	}
}
