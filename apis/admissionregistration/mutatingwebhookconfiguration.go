package admissionregistration

import (
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
)

var mutatingWebhookConfigurations = apis.Define(apis.Resource[*admissionregistrationv1.MutatingWebhookConfiguration]{
	Plural:     "mutatingwebhookconfigurations",
	Categories: []string{"api-extensions"},
	Scope:      apis.Cluster,
	Default: func(c *admissionregistrationv1.MutatingWebhookConfiguration) {
		for i := range c.Webhooks {
			h := &c.Webhooks[i]
			w := webhookOf(h)
			defaultWebhook(&w)
			h.FailurePolicy, h.MatchPolicy, h.TimeoutSeconds = w.FailurePolicy, w.MatchPolicy, w.TimeoutSeconds
			h.NamespaceSelector, h.ObjectSelector = w.NamespaceSelector, w.ObjectSelector
			if h.ReinvocationPolicy == nil {
				h.ReinvocationPolicy = new(admissionregistrationv1.NeverReinvocationPolicy)
			}
		}
	},
	Spec: func(c *admissionregistrationv1.MutatingWebhookConfiguration) any { return c.Webhooks },
	Validate: func(c, old *admissionregistrationv1.MutatingWebhookConfiguration) field.ErrorList {
		at := check.New()
		var was []admissionregistrationv1.ValidatingWebhook
		if old != nil {
			was = webhooksOf(old.Webhooks)
		}
		webhooks(at.Dot("webhooks"), webhooksOf(c.Webhooks), was, old != nil, func(at check.At, i int) {
			if p := c.Webhooks[i].ReinvocationPolicy; p != nil {
				check.OneOf(at.Dot("reinvocationPolicy"), *p, admissionregistrationv1.NeverReinvocationPolicy, admissionregistrationv1.IfNeededReinvocationPolicy)
			}
		})
		return at.Errors()
	},
	Columns: []apis.Column[*admissionregistrationv1.MutatingWebhookConfiguration]{
		{Name: "Webhooks", Type: "integer", Cell: func(c *admissionregistrationv1.MutatingWebhookConfiguration, _ time.Time) any {
			return int64(len(c.Webhooks))
		}},
	},
})

// webhookOf is what a webhook that changes objects has in common with one
// that does not; slices and pointers are shared.
func webhookOf(h *admissionregistrationv1.MutatingWebhook) admissionregistrationv1.ValidatingWebhook {
	return admissionregistrationv1.ValidatingWebhook{
		Name: h.Name, ClientConfig: h.ClientConfig, Rules: h.Rules, FailurePolicy: h.FailurePolicy, MatchPolicy: h.MatchPolicy,
		NamespaceSelector: h.NamespaceSelector, ObjectSelector: h.ObjectSelector, SideEffects: h.SideEffects,
		TimeoutSeconds: h.TimeoutSeconds, AdmissionReviewVersions: h.AdmissionReviewVersions, MatchConditions: h.MatchConditions,
	}
}

func webhooksOf(mutating []admissionregistrationv1.MutatingWebhook) []admissionregistrationv1.ValidatingWebhook {
	all := make([]admissionregistrationv1.ValidatingWebhook, len(mutating))
	for i := range mutating {
		all[i] = webhookOf(&mutating[i])
	}
	return all
}
