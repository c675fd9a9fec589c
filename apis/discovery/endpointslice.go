package discovery

import (
	"strconv"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var endpointSlices = apis.Define(apis.Resource[*discoveryv1.EndpointSlice]{
	Plural: "endpointslices",
	Spec: func(s *discoveryv1.EndpointSlice) any {
		return []any{s.AddressType, s.Endpoints, s.Ports, s.Labels, s.Annotations}
	},
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
