package networking

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

// oldClass names the class of an ingress as it was before there was a field for it.
const oldClass = "kubernetes.io/ingress.class"

var ingresses = apis.Define(apis.Resource[*networkingv1.Ingress]{
	Plural:   "ingresses",
	Short:    []string{"ing"},
	StoredAt: "ingress",

	Prepare:  meta.KeepStatus[*networkingv1.Ingress],
	Validate: validateIngress,
	Warn:     warnIngress,
	Spec:     func(i *networkingv1.Ingress) any { return &i.Spec },
	Subs: []apis.Sub[*networkingv1.Ingress]{{
		Name: "status", Keeps: []string{"spec"},
		Prepare: func(_, _ *networkingv1.Ingress) {}, Validate: validateIngressStatus, Warn: warnIngressStatus,
	}},

	Columns: []apis.Column[*networkingv1.Ingress]{
		{Name: "Class", Cell: func(i *networkingv1.Ingress, _ time.Time) any { return meta.Deref(i.Spec.IngressClassName, "<none>") }},
		{Name: "Hosts", Cell: func(i *networkingv1.Ingress, _ time.Time) any { return printHosts(i.Spec.Rules) }},
		{Name: "Address", Cell: func(i *networkingv1.Ingress, _ time.Time) any { return printAddresses(i.Status.LoadBalancer.Ingress) }},
		{Name: "Ports", Cell: func(i *networkingv1.Ingress, _ time.Time) any {
			if len(i.Spec.TLS) > 0 {
				return "80, 443"
			}
			return "80"
		}},
	},
})

// printHosts names the first few hosts. As upstream: rules without a host are
// among those not shown.
func printHosts(rules []networkingv1.IngressRule) string {
	const few = 3
	var hosts []string
	for _, r := range rules {
		if len(hosts) == few {
			return fmt.Sprintf("%s + %d more...", strings.Join(hosts, ","), len(rules)-few)
		}
		if r.Host != "" {
			hosts = append(hosts, r.Host)
		}
	}
	return meta.Or(strings.Join(hosts, ","), "*")
}

func printAddresses(ingress []networkingv1.IngressLoadBalancerIngress) string {
	all := map[string]bool{}
	for _, i := range ingress {
		if at := meta.Or(i.IP, i.Hostname); at != "" {
			all[at] = true
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(all)), ",")
}

func warnIngress(i, old *networkingv1.Ingress) []string {
	if _, named := i.Annotations[oldClass]; named && old == nil && i.Spec.IngressClassName == nil {
		return []string{`annotation "` + oldClass + `" is deprecated, please use 'spec.ingressClassName' instead`}
	}
	return nil
}

func warnIngressStatus(i, _ *networkingv1.Ingress) []string {
	var w check.Warnings
	for n, in := range i.Status.LoadBalancer.Ingress {
		if in.IP != "" {
			meta.WarnIP(&w, check.At{}.Dot("status.loadBalancer.ingress").Index(n), in.IP)
		}
	}
	return w
}
