package webhook

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/expression"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/hook"
	"github.com/knarr-dev/knarr/registry/match"
)

// A webhook is one webhook of a configuration, ready to be asked.
type webhook struct {
	name, configuration string

	criteria   *match.Criteria
	conditions match.Conditions
	to         *hook.Hook
	broken     error // why it cannot be called
	timeout    time.Duration
	ignore     bool   // go on where it cannot be called
	harmless   bool   // it may be asked about what is not done
	version    string // of AdmissionReview; "" if it speaks none that is spoken here
	again      bool   // ask again where others have changed the object since
}

// Configurations are one kind of configuration.
type configurations struct {
	resource string
	webhooks func(obj apis.Object) []declared
}

// declared is a webhook as it is configured; one that changes nothing is
// never asked again.
type declared struct {
	admissionregistrationv1.ValidatingWebhook

	again bool
}

var (
	mutatingConfigurations = configurations{"mutatingwebhookconfigurations", func(obj apis.Object) (all []declared) {
		c, ok := obj.(*admissionregistrationv1.MutatingWebhookConfiguration)
		if !ok {
			return nil
		}
		for _, h := range c.Webhooks {
			p := h.ReinvocationPolicy
			all = append(all, declared{admissionregistrationv1.ValidatingWebhook{
				Name: h.Name, ClientConfig: h.ClientConfig, Rules: h.Rules, FailurePolicy: h.FailurePolicy, MatchPolicy: h.MatchPolicy,
				NamespaceSelector: h.NamespaceSelector, ObjectSelector: h.ObjectSelector, SideEffects: h.SideEffects,
				TimeoutSeconds: h.TimeoutSeconds, AdmissionReviewVersions: h.AdmissionReviewVersions, MatchConditions: h.MatchConditions,
			}, p != nil && *p == admissionregistrationv1.IfNeededReinvocationPolicy})
		}
		return all
	}}
	validatingConfigurations = configurations{"validatingwebhookconfigurations", func(obj apis.Object) (all []declared) {
		c, ok := obj.(*admissionregistrationv1.ValidatingWebhookConfiguration)
		if !ok {
			return nil
		}
		for _, h := range c.Webhooks {
			all = append(all, declared{h, false})
		}
		return all
	}}
)

// A source knows the webhooks of one kind of configuration. They are made
// ready when a configuration is first seen, and kept until it changes.
type source struct {
	Config
	configurations

	gr   schema.GroupResource
	kind *cache.Kind
	last atomic.Pointer[ready]

	mu   sync.Mutex
	made map[*cache.Object][]*webhook
}

// ready are all webhooks, as of a change of some configuration.
type ready struct {
	changed int64
	all     []*webhook
}

func newSource(cfg Config, of configurations) *source {
	gr := schema.GroupResource{Group: admissionregistrationv1.GroupName, Resource: of.resource}
	return &source{Config: cfg, configurations: of, gr: gr, kind: cfg.Service.Kind(gr).Objects}
}

// current are all webhooks in the order in which they are to be asked: by the
// names of their configurations. What this server has written is heeded at once.
func (s *source) current(ctx context.Context) ([]*webhook, error) {
	if err := s.World.Await(ctx, s.gr); err != nil {
		return nil, err
	}
	changed := s.kind.Changed()
	if r := s.last.Load(); r != nil && r.changed == changed {
		return r.all, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	changed = s.kind.Changed() // before the list, which may show more
	list, err := s.kind.List(ctx, cache.Query{})
	if err != nil {
		return nil, err
	}
	made := map[*cache.Object][]*webhook{}
	var all []*webhook
	for _, o := range list.Objects {
		hooks, known := s.made[o]
		if !known {
			hooks = s.compile(ctx, o)
		}
		made[o], all = hooks, append(all, hooks...)
	}
	for o, hooks := range s.made {
		if _, still := made[o]; !still {
			for _, h := range hooks {
				h.close()
			}
		}
	}
	s.made = made
	s.last.Store(&ready{changed, all})
	return all, nil
}

// compile makes the webhooks of a configuration ready.
func (s *source) compile(ctx context.Context, o *cache.Object) (all []*webhook) {
	obj, err := o.Decode()
	if err != nil {
		slog.ErrorContext(ctx, "a webhook configuration cannot be read", "obj", o.GroupVersionKind.Kind+"/"+o.Name(), "err", err)
		return nil
	}
	for _, d := range s.webhooks(obj) {
		h, err := s.webhook(o.Name(), &d)
		if err != nil {
			slog.ErrorContext(ctx, "a webhook cannot be used", "webhook", d.Name, "obj", o.GroupVersionKind.Kind+"/"+o.Name(), "err", err)
			continue
		}
		all = append(all, h)
	}
	return all
}

func (s *source) webhook(configuration string, d *declared) (*webhook, error) {
	rules := make([]admissionregistrationv1.NamedRuleWithOperations, len(d.Rules))
	for i, r := range d.Rules {
		rules[i].RuleWithOperations = r
	}
	if len(rules) == 0 { // which means nothing, where a policy would mean everything
		rules = []admissionregistrationv1.NamedRuleWithOperations{{}}
	}
	criteria, err := match.New(&admissionregistrationv1.MatchResources{
		NamespaceSelector: d.NamespaceSelector, ObjectSelector: d.ObjectSelector, ResourceRules: rules, MatchPolicy: d.MatchPolicy,
	})
	if err != nil {
		return nil, err
	}
	h := &webhook{
		name: d.Name, configuration: configuration, criteria: criteria, again: d.again, timeout: 10 * time.Second,
		conditions: match.NewConditions(d.MatchConditions, expression.Uses{Authorizer: true}),
		ignore:     d.FailurePolicy != nil && *d.FailurePolicy == admissionregistrationv1.Ignore,
	}
	if t := d.TimeoutSeconds; t != nil {
		h.timeout = time.Duration(*t) * time.Second
	}
	if e := d.SideEffects; e != nil {
		h.harmless = *e == admissionregistrationv1.SideEffectClassNone || *e == admissionregistrationv1.SideEffectClassNoneOnDryRun
	}
	for _, v := range d.AdmissionReviewVersions {
		if h.version == "" && (v == "v1" || v == "v1beta1") {
			h.version = v
		}
	}
	to := hook.Target{URL: d.ClientConfig.URL, CABundle: d.ClientConfig.CABundle}
	if svc := d.ClientConfig.Service; svc != nil {
		to.Service = &hook.Service{Namespace: svc.Namespace, Name: svc.Name, Path: svc.Path, Port: svc.Port}
	}
	h.to, h.broken = hook.New(s.Service, to)
	return h, nil
}

func (h *webhook) close() {
	if h.to != nil {
		h.to.Close()
	}
}
