package networking

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

func validateIngress(i, old *networkingv1.Ingress) field.ErrorList {
	root, s := check.New(), &i.Spec
	at := root.Dot("spec")
	if len(s.Rules) == 0 && s.DefaultBackend == nil {
		at.Invalid(check.Bare(s.Rules), "either `defaultBackend` or `rules` must be specified")
	}
	if s.DefaultBackend != nil {
		backend(at.Dot("defaultBackend"), s.DefaultBackend, validation.NameIsDNSLabel)
	}
	lenient := oddWildcard(old)
	for n := range s.Rules {
		rule(at.Dot("rules").Index(n), &s.Rules[n], lenient)
	}
	lenient = oddSecret(old)
	for n, t := range s.TLS {
		tls(at.Dot("tls").Index(n), t, lenient)
	}
	if s.IngressClassName != nil {
		meta.Name(at.Dot("ingressClassName"), *s.IngressClassName)
	}
	class, named := i.Annotations[oldClass]
	if old == nil && named && s.IngressClassName != nil && class != *s.IngressClassName {
		root.Dot("annotations").Dot(oldClass).Invalid(class, "must match `ingressClassName` when both are specified")
	}
	return root.Errors()
}

// oddWildcard reports whether an ingress was stored with paths for a wildcard
// that are refused today.
func oddWildcard(i *networkingv1.Ingress) bool {
	return i != nil && slices.ContainsFunc(i.Spec.Rules, func(r networkingv1.IngressRule) bool {
		at := check.New()
		paths(at, r.HTTP, validation.NameIsDNS1035Label)
		return strings.Contains(r.Host, "*") && at.Found() > 0
	})
}

// oddSecret reports whether an ingress was stored with the name of a secret
// that is refused today.
func oddSecret(i *networkingv1.Ingress) bool {
	return i != nil && slices.ContainsFunc(i.Spec.TLS, func(t networkingv1.IngressTLS) bool {
		return t.SecretName != "" && len(validation.NameIsDNSSubdomain(t.SecretName, false)) > 0
	})
}

func tls(at check.At, t networkingv1.IngressTLS, lenient bool) {
	for i, host := range t.Hosts {
		wildcard(at.Dot("hosts").Index(i), host)
	}
	if t.SecretName != "" && !lenient {
		meta.Name(at.Dot("secretName"), t.SecretName)
	}
}

// wildcard demands a name, or a wildcard that stands for names.
func wildcard(at check.At, host string) {
	if strings.Contains(host, "*") {
		at.Wrong(host, utilvalidation.IsWildcardDNS1123Subdomain(host))
		return
	}
	at.Subdomain(host)
}

func rule(at check.At, r *networkingv1.IngressRule, lenient bool) {
	if host := at.Dot("host"); r.Host != "" {
		if netutils.ParseIPSloppy(r.Host) != nil {
			host.Invalid(r.Host, "must be a DNS name, not an IP address")
		}
		wildcard(host, r.Host)
	}
	if !lenient || !strings.Contains(r.Host, "*") {
		paths(at.Dot("http"), r.HTTP, validation.NameIsDNSLabel)
	}
}

// paths checks where the paths of a rule lead, service telling what a
// service may be called.
func paths(at check.At, http *networkingv1.HTTPIngressRuleValue, service validation.ValidateNameFunc) {
	if http == nil {
		return
	}
	if at = at.Dot("paths"); len(http.Paths) == 0 {
		at.Required("")
	}
	for i, p := range http.Paths {
		at := at.Index(i)
		if p.PathType == nil {
			at.Dot("pathType").Required("pathType must be specified")
			continue
		}
		httpPath(at, p.Path, *p.PathType)
		backend(at.Dot("backend"), &p.Backend, service)
	}
}

func httpPath(at check.At, p string, kind networkingv1.PathType) {
	absolute, types := strings.HasPrefix(p, "/"), at.Dot("pathType")
	at = at.Dot("path")
	switch kind {
	case networkingv1.PathTypeExact, networkingv1.PathTypePrefix:
		if !absolute {
			at.Invalid(p, "must be an absolute path")
		}
		for _, odd := range []string{"//", "/./", "/../", "%2f", "%2F"} {
			if strings.Contains(p, odd) {
				at.Invalid(p, "must not contain '"+odd+"'")
			}
		}
		for _, odd := range []string{"/..", "/."} {
			if strings.HasSuffix(p, odd) {
				at.Invalid(p, "cannot end with '"+odd+"'")
			}
		}
	case networkingv1.PathTypeImplementationSpecific:
		if p != "" && !absolute {
			at.Invalid(p, "must be an absolute path")
		}
	default:
		check.OneOf(types, kind, networkingv1.PathTypeExact, networkingv1.PathTypePrefix, networkingv1.PathTypeImplementationSpecific)
	}
}

func backend(at check.At, b *networkingv1.IngressBackend, name validation.ValidateNameFunc) {
	s := b.Service
	switch {
	case b.Resource != nil && s != nil:
		at.Invalid("", "cannot set both resource and service backends")
		return
	case b.Resource != nil:
		reference(at.Dot("resource"), b.Resource)
		return
	case s == nil:
		at.Invalid("", "resource or service backend is required")
		return
	}
	if at := at.Dot("service.name"); at.Present(s.Name) {
		at.Wrong(s.Name, name(s.Name, false))
	}
	port := at.Dot("service.port")
	switch p := s.Port; {
	case p.Name != "" && p.Number != 0:
		at.Invalid("", "cannot set both port name & port number")
	case p.Name != "":
		port.Dot("name").Wrong(p.Name, utilvalidation.IsValidPortName(p.Name))
	case p.Number != 0:
		port.Dot("number").Wrong(p.Number, utilvalidation.IsValidPortNum(int(p.Number)))
	default:
		at.Required("port name or number is required")
	}
}

func reference(at check.At, r *corev1.TypedLocalObjectReference) {
	if r.APIGroup != nil {
		at.Dot("apiGroup").Subdomain(*r.APIGroup)
	}
	meta.Segment(at.Dot("kind"), r.Kind)
	meta.Segment(at.Dot("name"), r.Name)
}

func validateIngressStatus(i, old *networkingv1.Ingress) field.ErrorList {
	at := check.New()
	var had []string
	for _, in := range old.Status.LoadBalancer.Ingress {
		if in.IP != "" {
			had = append(had, in.IP)
		}
	}
	for n, in := range i.Status.LoadBalancer.Ingress {
		at := at.Dot("status.loadBalancer.ingress").Index(n)
		if in.IP != "" {
			meta.IP(at.Dot("ip"), in.IP, had...)
		}
		if in.Hostname == "" {
			continue
		}
		at.Dot("hostname").Subdomain(in.Hostname)
		if netutils.ParseIPSloppy(in.Hostname) != nil {
			at.Dot("hostname").Invalid(in.Hostname, "must be a DNS name, not an IP address")
		}
	}
	return at.Errors()
}
