package admissionregistration

import (
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
)

var validatingWebhookConfigurations = apis.Define(apis.Resource[*admissionregistrationv1.ValidatingWebhookConfiguration]{
	Plural:     "validatingwebhookconfigurations",
	Categories: []string{"api-extensions"},
	Scope:      apis.Cluster,
	Default: func(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
		for i := range c.Webhooks {
			defaultWebhook(&c.Webhooks[i])
		}
	},
	Spec: func(c *admissionregistrationv1.ValidatingWebhookConfiguration) any { return c.Webhooks },
	Validate: func(c, old *admissionregistrationv1.ValidatingWebhookConfiguration) field.ErrorList {
		at := check.New()
		var was []admissionregistrationv1.ValidatingWebhook
		if old != nil {
			was = old.Webhooks
		}
		webhooks(at.Dot("webhooks"), c.Webhooks, was, old != nil, func(check.At, int) {})
		return at.Errors()
	},
	Columns: []apis.Column[*admissionregistrationv1.ValidatingWebhookConfiguration]{
		{Name: "Webhooks", Type: "integer", Cell: func(c *admissionregistrationv1.ValidatingWebhookConfiguration, _ time.Time) any {
			return int64(len(c.Webhooks))
		}},
	},
})
