package core

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var services = apis.Define(apis.Resource[*corev1.Service]{
	Plural:     "services",
	Short:      []string{"svc"},
	Categories: []string{"all"},
	StoredAt:   "services/specs",

	Default:  defaultService,
	Prepare:  prepareService,
	Validate: validateService,
	Warn:     warnService,
	Name:     validation.NameIsDNSLabel,
	Subs: []apis.Sub[*corev1.Service]{{
		Name: "status", Keeps: []string{"spec"},
		Prepare: func(_, _ *corev1.Service) {}, Validate: validateServiceStatus, Warn: warnServiceStatus,
	}},
	Acts: []apis.Act{{Name: "proxy", Kind: kind("ServiceProxyOptions"), Verbs: proxyVerbs}},

	Fields: map[string]func(*corev1.Service) string{
		"spec.clusterIP": func(s *corev1.Service) string { return s.Spec.ClusterIP },
		"spec.type":      func(s *corev1.Service) string { return string(s.Spec.Type) },
	},
	Columns: []apis.Column[*corev1.Service]{
		{Name: "Type", Cell: func(s *corev1.Service, _ time.Time) any { return string(s.Spec.Type) }},
		{Name: "Cluster-IP", Cell: func(s *corev1.Service, _ time.Time) any {
			if len(s.Spec.ClusterIPs) == 0 {
				return "<none>"
			}
			return s.Spec.ClusterIPs[0]
		}},
		{Name: "External-IP", Cell: func(s *corev1.Service, _ time.Time) any { return externalIP(s) }},
		{Name: "Port(s)", Cell: func(s *corev1.Service, _ time.Time) any { return meta.Or(printPorts(s.Spec.Ports), "<none>") }},
		{Name: "Selector", Wide: true, Cell: func(s *corev1.Service, _ time.Time) any { return labels.FormatLabels(s.Spec.Selector) }},
	},
	Lifetime: apis.Lifetime[*corev1.Service]{UpsertsOnUpdate: true, ReturnsDeleted: true},
})

// externalIP is how the service is reached from outside, or what stands for it.
func externalIP(s *corev1.Service) string {
	external := strings.Join(s.Spec.ExternalIPs, ",")
	switch s.Spec.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort:
		return meta.Or(external, "<none>")
	case corev1.ServiceTypeLoadBalancer:
		given := map[string]bool{}
		for _, ingress := range s.Status.LoadBalancer.Ingress {
			if at := meta.Or(ingress.IP, ingress.Hostname); at != "" {
				given[at] = true
			}
		}
		all := append(slices.Sorted(maps.Keys(given)), s.Spec.ExternalIPs...)
		return meta.Or(strings.Join(all, ","), "<pending>")
	case corev1.ServiceTypeExternalName:
		return s.Spec.ExternalName
	}
	return "<unknown>"
}

func printPorts(ports []corev1.ServicePort) string {
	var all []string
	for _, p := range ports {
		if p.NodePort > 0 {
			all = append(all, fmt.Sprintf("%d:%d/%s", p.Port, p.NodePort, p.Protocol))
		} else {
			all = append(all, fmt.Sprintf("%d/%s", p.Port, p.Protocol))
		}
	}
	return strings.Join(all, ",")
}
