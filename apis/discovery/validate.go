package discovery

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

// The most that a slice holds, so that it fits in one value of the store.
const (
	maxEndpoints = 1000
	maxPorts     = 20000
	maxAddresses = 100 // of an endpoint
	maxTopology  = 16
	maxHints     = 8
)

func validateEndpointSlice(s, old *discoveryv1.EndpointSlice) field.ErrorList {
	at := check.New()
	check.Choice(at.Dot("addressType"), s.AddressType, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN)
	ports(at.Dot("ports"), s.Ports)
	// What was stored once may stay as it is.
	aside := at.Dot("endpoints").Aside()
	endpoints(aside, s)
	if aside.Found() > 0 && (old == nil || !equality.Semantic.DeepEqual(s.Endpoints, old.Endpoints)) {
		at.Add(aside.Errors()...)
	}
	if old != nil {
		at.Dot("addressType").Same(s.AddressType, old.AddressType)
	}
	return at.Errors()
}

func ports(at check.At, all []discoveryv1.EndpointPort) {
	if len(all) > maxPorts {
		at.TooMany(len(all), maxPorts)
		return
	}
	names := check.Set[string]{}
	for i, p := range all {
		at, name := at.Index(i), meta.Deref(p.Name, "")
		if name != "" {
			at.Dot("name").Label(name)
		}
		if names.Twice(name) {
			at.Dot("name").Duplicate(name)
		}
		if p.Protocol == nil {
			at.Dot("protocol").Required("")
		} else {
			check.OneOf(at.Dot("protocol"), *p.Protocol, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
		}
		if p.AppProtocol != nil {
			at.Dot("appProtocol").Qualified(*p.AppProtocol)
		}
	}
}

func endpoints(at check.At, s *discoveryv1.EndpointSlice) {
	if len(s.Endpoints) > maxEndpoints {
		at.TooMany(len(s.Endpoints), maxEndpoints)
		return
	}
	for i, e := range s.Endpoints {
		endpoint(at.Index(i), e, s.AddressType)
	}
}

func endpoint(at check.At, e discoveryv1.Endpoint, kind discoveryv1.AddressType) {
	addresses := at.Dot("addresses")
	if len(e.Addresses) == 0 {
		addresses.Required("must contain at least 1 address")
	} else if len(e.Addresses) > maxAddresses {
		addresses.TooMany(len(e.Addresses), maxAddresses)
	}
	for i, a := range e.Addresses {
		address(addresses, i, a, kind)
	}
	if e.NodeName != nil {
		meta.Name(at.Dot("nodeName"), *e.NodeName)
	}
	topology := at.Dot("deprecatedTopology")
	if len(e.DeprecatedTopology) > maxTopology {
		topology.TooMany(len(e.DeprecatedTopology), maxTopology)
	}
	meta.Labels(topology, e.DeprecatedTopology)
	if e.Hostname != nil {
		at.Dot("hostname").Label(*e.Hostname)
	}
	if e.Hints != nil {
		hints(at.Dot("hints"), e.Hints)
	}
}

// address checks the i-th address of an endpoint. Of the family upstream
// tells at the list as a whole.
func address(list check.At, i int, a string, kind discoveryv1.AddressType) {
	at, before := list.Index(i), list.Found()
	switch kind {
	case discoveryv1.AddressTypeIPv4:
		if meta.IP(at, a); at.Found() > before {
			return
		}
		if !netutils.IsIPv4String(a) {
			list.Invalid(a, "must be an IPv4 address")
		}
		meta.EndpointIP(at, a)
	case discoveryv1.AddressTypeIPv6:
		if at.Add(utilvalidation.IsValidIP(at.Path(), a)...); at.Found() > before {
			return
		}
		if !netutils.IsIPv6String(a) {
			list.Invalid(a, "must be an IPv6 address")
		}
		meta.EndpointIP(at, a)
	case discoveryv1.AddressTypeFQDN:
		at.Add(utilvalidation.IsFullyQualifiedDomainName(at.Path(), a)...)
	}
}

func hints(at check.At, h *discoveryv1.EndpointHints) {
	if at := at.Dot("forZones"); len(h.ForZones) > maxHints {
		at.TooMany(len(h.ForZones), maxHints)
		return
	}
	zones, nodes := check.Set[string]{}, check.Set[string]{}
	for i, z := range h.ForZones {
		at := at.Dot("forZones").Index(i).Dot("name")
		if zones.Twice(z.Name) {
			at.Duplicate(z.Name)
		}
		at.Wrong(z.Name, utilvalidation.IsValidLabelValue(z.Name))
	}
	if at := at.Dot("forNodes"); len(h.ForNodes) > maxHints {
		at.TooMany(len(h.ForNodes), maxHints)
		return
	}
	for i, n := range h.ForNodes {
		at := at.Dot("forNodes").Index(i).Dot("name")
		if nodes.Twice(n.Name) {
			at.Duplicate(n.Name)
		}
		meta.Name(at, n.Name)
	}
}
