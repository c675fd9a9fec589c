package discovery

import (
	"cmp"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

var endpointSlices = apis.Define(apis.Resource[*discoveryv1.EndpointSlice]{
	Plural: "endpointslices",

	Default:  defaultEndpointSlice,
	Prepare:  prepareEndpointSlice,
	Validate: validateEndpointSlice,
	Warn:     warnEndpointSlice,

	Spec: func(s *discoveryv1.EndpointSlice) any { return []any{s.AddressType, s.Endpoints, s.Ports, s.Labels} },
	Columns: []apis.Column[*discoveryv1.EndpointSlice]{
		{Name: "AddressType", Cell: func(s *discoveryv1.EndpointSlice, _ time.Time) any { return string(s.AddressType) }},
		{Name: "Ports", Cell: func(s *discoveryv1.EndpointSlice, _ time.Time) any { return printPorts(s.Ports) }},
		{Name: "Endpoints", Cell: func(s *discoveryv1.EndpointSlice, _ time.Time) any { return printEndpoints(s.Endpoints) }},
	},
})

func printPorts(ports []discoveryv1.EndpointPort) string {
	var all []string
	for _, p := range ports {
		switch {
		case p.Port != nil:
			all = append(all, strconv.Itoa(int(*p.Port)))
		case p.Name != nil:
			all = append(all, *p.Name)
		default:
			all = append(all, "*")
		}
	}
	return meta.Or(meta.Some(all, 3), "<unset>")
}

func printEndpoints(endpoints []discoveryv1.Endpoint) string {
	var all []string
	for _, e := range endpoints {
		all = append(all, e.Addresses...)
	}
	return meta.Or(meta.Some(all, 3), "<unset>")
}

func defaultEndpointSlice(s *discoveryv1.EndpointSlice) {
	for i := range s.Ports {
		p := &s.Ports[i]
		p.Name = cmp.Or(p.Name, new(string))
		p.Protocol = cmp.Or(p.Protocol, new(corev1.ProtocolTCP))
	}
}

// prepareEndpointSlice drops the topology of before there were nodeName and
// zone, unless the endpoints are sent back as they were. A client that knows
// only the topology leaves an endpoint on its node.
func prepareEndpointSlice(s, old *discoveryv1.EndpointSlice) {
	nodes := map[string]bool{}
	if old != nil {
		if equality.Semantic.DeepEqual(s.Endpoints, old.Endpoints) {
			return
		}
		for _, e := range old.Endpoints {
			nodes[e.DeprecatedTopology[corev1.LabelHostname]] = true
		}
	}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		node, ok := e.DeprecatedTopology[corev1.LabelHostname]
		if e.NodeName == nil && ok && nodes[node] && len(validation.NameIsDNSSubdomain(node, false)) == 0 {
			e.NodeName = &node
		}
		e.DeprecatedTopology = nil
	}
}

func warnEndpointSlice(s, old *discoveryv1.EndpointSlice) []string {
	var w check.Warnings
	if old == nil && s.AddressType == discoveryv1.AddressTypeFQDN {
		w.Add("spec.addressType: FQDN endpoints are deprecated") // as upstream: there is no spec
	}
	switch s.Labels[discoveryv1.LabelManagedBy] {
	case "endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io": // they write addresses in their proper form
		return w
	}
	for i, e := range s.Endpoints {
		for j, a := range e.Addresses {
			meta.WarnIP(&w, check.At{}.Dot("endpoints").Index(i).Dot("addresses").Index(j), a)
		}
	}
	return w
}
