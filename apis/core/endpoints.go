//nolint:staticcheck // Endpoints are deprecated, and served.
package core

import (
	"cmp"
	"net"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

var endpoints = apis.Define(apis.Resource[*corev1.Endpoints]{
	Plural:     "endpoints",
	Short:      []string{"ep"},
	StoredAt:   "services/endpoints",
	Deprecated: "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",

	Default:  defaultEndpoints,
	Validate: validateEndpoints,
	Warn:     warnEndpoints,
	Columns: []apis.Column[*corev1.Endpoints]{
		{Name: "Endpoints", Cell: func(e *corev1.Endpoints, _ time.Time) any { return printEndpoints(e) }},
	},
	Lifetime: apis.Lifetime[*corev1.Endpoints]{UpsertsOnUpdate: true},
})

func defaultEndpoints(e *corev1.Endpoints) {
	for _, s := range e.Subsets {
		for i := range s.Ports {
			s.Ports[i].Protocol = cmp.Or(s.Ports[i].Protocol, corev1.ProtocolTCP)
		}
	}
}

// validateEndpoints lets stay what was stored before there was a rule against it.
func validateEndpoints(e, old *corev1.Endpoints) field.ErrorList {
	at := check.New()
	if old != nil && equality.Semantic.DeepEqual(e.Subsets, old.Subsets) {
		return nil
	}
	for i, s := range e.Subsets {
		at := at.Dot("subsets").Index(i)
		if len(s.Addresses) == 0 && len(s.NotReadyAddresses) == 0 {
			at.Required("must specify `addresses` or `notReadyAddresses`")
		}
		for i := range s.Addresses {
			endpointAddress(at.Dot("addresses").Index(i), &s.Addresses[i])
		}
		for i := range s.NotReadyAddresses {
			endpointAddress(at.Dot("notReadyAddresses").Index(i), &s.NotReadyAddresses[i])
		}
		for i, p := range s.Ports {
			at := at.Dot("ports").Index(i)
			if p.Name != "" {
				at.Dot("name").Label(p.Name)
			} else if len(s.Ports) > 1 {
				at.Dot("name").Required("")
			}
			at.Dot("port").Wrong(p.Port, utilvalidation.IsValidPortNum(int(p.Port)))
			meta.Protocol(at.Dot("protocol"), p.Protocol)
			if p.AppProtocol != nil {
				at.Dot("appProtocol").Qualified(*p.AppProtocol)
			}
		}
	}
	return at.Errors()
}

func endpointAddress(at check.At, a *corev1.EndpointAddress) {
	meta.IP(at.Dot("ip"), a.IP)
	if a.Hostname != "" {
		at.Dot("hostname").Label(a.Hostname)
	}
	if a.NodeName != nil {
		meta.Name(at.Dot("nodeName"), *a.NodeName)
	}
	meta.EndpointIP(at.Dot("ip"), a.IP)
}

// warnEndpoints warns but those who write them by hand.
func warnEndpoints(e, _ *corev1.Endpoints) []string {
	var w check.Warnings
	if e.Labels["endpoints.kubernetes.io/managed-by"] == "endpoint-controller" {
		return nil
	}
	for i, s := range e.Subsets {
		at := check.At{}.Dot("subsets").Index(i)
		for j, a := range s.Addresses {
			meta.WarnIP(&w, at.Dot("addresses").Index(j).Dot("ip"), a.IP)
		}
		for j, a := range s.NotReadyAddresses {
			meta.WarnIP(&w, at.Dot("notReadyAddresses").Index(j).Dot("ip"), a.IP)
		}
	}
	return w
}

func printEndpoints(e *corev1.Endpoints) string {
	if len(e.Subsets) == 0 {
		return "<none>"
	}
	var all []string
	for _, subset := range e.Subsets {
		if len(subset.Ports) == 0 {
			for _, address := range subset.Addresses {
				all = append(all, address.IP)
			}
		}
		for _, port := range subset.Ports {
			for _, address := range subset.Addresses {
				all = append(all, net.JoinHostPort(address.IP, strconv.Itoa(int(port.Port))))
			}
		}
	}
	return meta.Some(all, 3)
}
