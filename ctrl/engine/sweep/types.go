package sweep

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	applyv1 "k8s.io/client-go/applyconfigurations/admissionregistration/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/knarr-dev/knarr/apis/expression"
	"github.com/knarr-dev/knarr/ctrl/engine"
)

const checkerAccount = "validatingadmissionpolicy-status-controller"

// maxTypes is how many kinds a policy's expressions are held to, as upstream.
const maxTypes = 10

// Types is the loop for engine.Config that holds the expressions of policies
// to the schemas of the kinds that they are about, and says in a policy's
// status what does not fit. It never keeps anybody from anything.
func Types(d discovery.DiscoveryInterface) engine.Loop {
	return engine.Loop{Name: "types", Run: func(ctx context.Context, e *engine.Engine) error {
		c := &checker{client: e.Client(checkerAccount), discovery: d}
		queue := newQueue[string]()
		informer := e.Informers.Admissionregistration().V1().ValidatingAdmissionPolicies().Informer()
		add := func(obj any) {
			if p, ok := obj.(*admissionregistrationv1.ValidatingAdmissionPolicy); ok && p.Generation > p.Status.ObservedGeneration {
				queue.Add(p.Name)
			}
		}
		reg, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, obj any) { add(obj) }})
		if err != nil {
			return err
		}
		e.Start(ctx)
		work(ctx, queue, 1, c.look)
		return informer.RemoveEventHandler(reg)
	}}
}

type checker struct {
	client    kubernetes.Interface
	discovery discovery.DiscoveryInterface
}

func (c *checker) look(ctx context.Context, name string) (time.Duration, error) {
	policies := c.client.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	p, err := policies.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil || p.Generation <= p.Status.ObservedGeneration {
		return 0, err
	}
	warnings := applyv1.TypeChecking()
	for _, w := range c.check(p) {
		warnings.WithExpressionWarnings(applyv1.ExpressionWarning().WithFieldRef(w.FieldRef).WithWarning(w.Warning))
	}
	status := applyv1.ValidatingAdmissionPolicyStatus().WithObservedGeneration(p.Generation).WithTypeChecking(warnings)
	_, err = policies.ApplyStatus(ctx, applyv1.ValidatingAdmissionPolicy(name).WithStatus(status),
		metav1.ApplyOptions{FieldManager: checkerAccount, Force: true})
	return 0, err
}

// check is what does not fit.
func (c *checker) check(p *admissionregistrationv1.ValidatingAdmissionPolicy) (all []admissionregistrationv1.ExpressionWarning) {
	kinds, checkers := c.checkers(p)
	hold := func(at, text string) {
		var found []string
		for i, checker := range checkers {
			if issues := checker.Issues(text); issues != "" {
				found = append(found, fmt.Sprintf("%v: %s\n", kinds[i], issues))
			}
		}
		if len(found) > 0 {
			all = append(all, admissionregistrationv1.ExpressionWarning{FieldRef: at, Warning: strings.Join(found, "\n")})
		}
	}
	for i, v := range p.Spec.Validations {
		hold(fmt.Sprintf("spec.validations[%d].expression", i), v.Expression)
		if v.MessageExpression != "" {
			hold(fmt.Sprintf("spec.validations[%d].messageExpression", i), v.MessageExpression)
		}
	}
	return all
}

// checkers are those for the kinds that a policy is about and that are known.
func (c *checker) checkers(p *admissionregistrationv1.ValidatingAdmissionPolicy) (kinds []schema.GroupVersionKind, all []*expression.Checker) {
	has := p.Spec.ParamKind != nil
	var params *spec.Schema
	var param schema.GroupVersionKind
	if has {
		param = schema.FromAPIVersionAndKind(p.Spec.ParamKind.APIVersion, p.Spec.ParamKind.Kind)
		params = c.schema(param)
	}
	for _, gvk := range c.about(p) {
		s := c.schema(gvk)
		if s == nil {
			continue
		}
		of := expression.TypeOf(param.Kind, orNothing(params))
		checker, err := expression.NewChecker(expression.TypeOf(gvk.Kind, s), of, has, p.Spec.Variables)
		if err == nil { // or else nothing can be said of the kind
			kinds, all = append(kinds, gvk), append(all, checker)
		}
	}
	return kinds, all
}

// orNothing is a schema that knows nothing where there is none.
func orNothing(s *spec.Schema) *spec.Schema {
	if s == nil {
		return &spec.Schema{}
	}
	return s
}

// about are the kinds that the rules of a policy name, in order. One that
// stands for more than one kind names none.
func (c *checker) about(p *admissionregistrationv1.ValidatingAdmissionPolicy) (kinds []schema.GroupVersionKind) {
	if p.Spec.MatchConstraints == nil {
		return nil
	}
	for _, r := range p.Spec.MatchConstraints.ResourceRules {
		if slices.Contains(r.APIGroups, "*") || slices.Contains(r.APIVersions, "*") {
			continue
		}
		for _, group := range r.APIGroups {
			for _, version := range r.APIVersions {
				kinds = append(kinds, c.named(schema.GroupVersion{Group: group, Version: version}, r.Resources)...)
			}
		}
	}
	slices.SortFunc(kinds, func(a, b schema.GroupVersionKind) int { return strings.Compare(a.String(), b.String()) })
	kinds = slices.Compact(kinds)
	return kinds[:min(len(kinds), maxTypes)]
}

// named are the kinds of resources of a version; of subresources it is not asked.
func (c *checker) named(gv schema.GroupVersion, plurals []string) (kinds []schema.GroupVersionKind) {
	list, err := c.discovery.ServerResourcesForGroupVersion(gv.String())
	if err != nil {
		return nil // it is not served
	}
	for _, r := range list.APIResources {
		if !strings.Contains(r.Name, "/") && slices.Contains(plurals, r.Name) {
			kinds = append(kinds, gv.WithKind(r.Kind))
		}
	}
	return kinds
}

// schema is that of a kind, without references; nil where there is none.
func (c *checker) schema(gvk schema.GroupVersionKind) *spec.Schema {
	paths, err := c.discovery.OpenAPIV3().Paths()
	if err != nil {
		return nil
	}
	path := "apis/" + gvk.GroupVersion().String()
	if gvk.Group == "" {
		path = "api/" + gvk.Version
	}
	at, ok := paths[path]
	if !ok {
		return nil
	}
	text, err := at.Schema(runtime.ContentTypeJSON)
	if err != nil {
		return nil
	}
	var doc struct {
		Components struct {
			Schemas map[string]*spec.Schema `json:"schemas"`
		} `json:"components"`
	}
	if json.Unmarshal(text, &doc) != nil {
		return nil
	}
	for _, s := range doc.Components.Schemas {
		var kinds []schema.GroupVersionKind
		if s.Extensions.GetObject("x-kubernetes-group-version-kind", &kinds) == nil && slices.Contains(kinds, gvk) {
			return whole(s, doc.Components.Schemas, nil)
		}
	}
	return nil
}

// whole is a copy of s with what it refers to in place. What refers to itself
// ends there.
func whole(s *spec.Schema, all map[string]*spec.Schema, within []string) *spec.Schema {
	out := *s
	ref := out.Ref.String()
	if ref == "" && len(out.AllOf) == 1 { // a reference that has more to say
		ref = out.AllOf[0].Ref.String()
	}
	if ref != "" {
		name := strings.TrimPrefix(ref, "#/components/schemas/")
		to := all[name]
		if to == nil || slices.Contains(within, name) {
			return &spec.Schema{SchemaProps: spec.SchemaProps{Type: spec.StringOrArray{"object"}}}
		}
		return whole(to, all, append(slices.Clip(within), name))
	}
	if out.Properties != nil {
		out.Properties = map[string]spec.Schema{}
		for name, p := range s.Properties {
			out.Properties[name] = *whole(&p, all, within)
		}
	}
	if s.Items != nil && s.Items.Schema != nil {
		out.Items = &spec.SchemaOrArray{Schema: whole(s.Items.Schema, all, within)}
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		out.AdditionalProperties = &spec.SchemaOrBool{Allows: true, Schema: whole(s.AdditionalProperties.Schema, all, within)}
	}
	return &out
}
