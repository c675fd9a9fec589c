package networking

import (
	"cmp"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

const maxController = 250 // as upstream; a domain and a path

var ingressClasses = apis.Define(apis.Resource[*networkingv1.IngressClass]{
	Plural: "ingressclasses",
	Scope:  apis.Cluster,

	Default: func(c *networkingv1.IngressClass) {
		if p := c.Spec.Parameters; p != nil {
			p.Scope = cmp.Or(p.Scope, new(networkingv1.IngressClassParametersReferenceScopeCluster))
		}
	},
	Validate: validateIngressClass,
	Spec:     func(c *networkingv1.IngressClass) any { return &c.Spec },

	Columns: []apis.Column[*networkingv1.IngressClass]{
		{Name: "Name", Cell: func(c *networkingv1.IngressClass, _ time.Time) any {
			if c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true" {
				return c.Name + " (default)"
			}
			return c.Name
		}},
		{Name: "Controller", Cell: func(c *networkingv1.IngressClass, _ time.Time) any { return c.Spec.Controller }},
		{Name: "Parameters", Cell: func(c *networkingv1.IngressClass, _ time.Time) any { return printParameters(c.Spec.Parameters) }},
	},
})

func printParameters(p *networkingv1.IngressClassParametersReference) string {
	if p == nil {
		return "<none>"
	}
	kind := p.Kind
	if p.APIGroup != nil {
		kind += "." + *p.APIGroup
	}
	return kind + "/" + p.Name
}

func validateIngressClass(c, old *networkingv1.IngressClass) field.ErrorList {
	root, s := check.New(), &c.Spec
	at := root.Dot("spec")
	controller := at.Dot("controller")
	if old != nil {
		controller.Same(s.Controller, old.Spec.Controller)
	}
	if len(s.Controller) > maxController {
		controller.TooLong(maxController)
	}
	controller.Add(utilvalidation.IsDomainPrefixedPath(controller.Path(), s.Controller)...)
	if s.Parameters != nil {
		parameters(at.Dot("parameters"), s.Parameters)
	}
	return root.Errors()
}

func parameters(at check.At, p *networkingv1.IngressClassParametersReference) {
	if p.APIGroup != nil {
		at.Dot("apiGroup").Subdomain(*p.APIGroup)
	}
	meta.Segment(at.Dot("kind"), p.Kind)
	meta.Segment(at.Dot("name"), p.Name)
	namespace := at.Dot("namespace")
	switch scope := meta.Deref(p.Scope, ""); {
	case p.Scope == nil:
		at.Dot("scope").Required("")
	case !check.OneOf(at.Dot("scope"), scope, networkingv1.IngressClassParametersReferenceScopeNamespace, networkingv1.IngressClassParametersReferenceScopeCluster):
	case scope == networkingv1.IngressClassParametersReferenceScopeCluster:
		if p.Namespace != nil {
			namespace.Forbidden("`parameters.scope` is set to 'Cluster'")
		}
	case p.Namespace == nil:
		namespace.Required("`parameters.scope` is set to 'Namespace'")
	default:
		meta.Namespace(namespace, *p.Namespace)
	}
}
