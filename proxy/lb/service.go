package lb

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// A Claim is a set of frontends that share their backends: one port of a
// service in one family, or one host port.
type Claim struct {
	Name      string // unique among the claims of its owner
	Proto     Proto
	Frontends map[Frontend]Flags
	Service   Service
}

// A Plan is all that one Service or Pod asks for.
type Plan struct {
	Created time.Time // of two that claim one frontend the elder has it
	Claims  []Claim
	Health  *Health
}

// Health is what an external load balancer is told about the service.
type Health struct {
	Port  uint16
	Ready int // ready endpoints on this node, each address once
}

var families = []struct {
	kind discoveryv1.AddressType
	any  netip.Addr
}{
	{discoveryv1.AddressTypeIPv4, netip.IPv4Unspecified()},
	{discoveryv1.AddressTypeIPv6, netip.IPv6Unspecified()},
}

var protos = map[corev1.Protocol]Proto{corev1.ProtocolTCP: TCP, corev1.ProtocolUDP: UDP, corev1.ProtocolSCTP: SCTP}

// Handles tells whether the service is for this proxy: it has an address of
// its own, and is not left to another.
func Handles(svc *corev1.Service) bool {
	_, other := svc.Labels["service.kubernetes.io/service-proxy-name"]
	return !other && svc.Spec.Type != corev1.ServiceTypeExternalName &&
		svc.Spec.ClusterIP != "" && svc.Spec.ClusterIP != corev1.ClusterIPNone
}

// Services plans one service with the EndpointSlices that are labelled with
// its name.
func Services(svc *corev1.Service, eps []*discoveryv1.EndpointSlice, node Node) Plan {
	plan := Plan{Created: svc.CreationTimestamp.Time}
	if !Handles(svc) {
		return plan
	}
	here := map[netip.Addr]bool{}
	for _, family := range families {
		ips := addresses(svc, family.any)
		if len(ips.cluster) == 0 {
			continue
		}
		ranges := sources(svc, family.any)
		for _, port := range svc.Spec.Ports {
			all := endpoints(eps, port, family.kind, node.Name)
			for _, e := range all {
				if e.ready && e.Local {
					here[e.Addr.Addr()] = true
				}
			}
			plan.Claims = append(plan.Claims, claim(svc, port, ips, ranges, all, node))
		}
	}
	if p := svc.Spec.HealthCheckNodePort; p != 0 && svc.Spec.Type == corev1.ServiceTypeLoadBalancer && outsideLocal(svc) {
		plan.Health = &Health{Port: uint16(p), Ready: len(here)}
	}
	return plan
}

func outsideLocal(svc *corev1.Service) bool {
	return svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

func insideLocal(svc *corev1.Service) bool {
	p := svc.Spec.InternalTrafficPolicy
	return p != nil && *p == corev1.ServiceInternalTrafficPolicyLocal
}

// ips are a service's addresses in one family.
type ips struct {
	any                         netip.Addr
	cluster, external, balancer []netip.Addr
}

func addresses(svc *corev1.Service, family netip.Addr) ips {
	of := func(texts ...string) (out []netip.Addr) {
		for _, t := range texts {
			if a, err := netip.ParseAddr(t); err == nil && a.Unmap().Is4() == family.Is4() {
				out = append(out, a.Unmap())
			}
		}
		return out
	}
	cluster := svc.Spec.ClusterIPs
	if len(cluster) == 0 {
		cluster = []string{svc.Spec.ClusterIP}
	}
	out := ips{any: family, cluster: of(cluster...), external: of(svc.Spec.ExternalIPs...)}
	for _, in := range svc.Status.LoadBalancer.Ingress {
		if in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP {
			out.balancer = append(out.balancer, of(in.IP)...)
		}
	}
	return out
}

// sources are the ranges that the load balancer's addresses are open to, nil
// where they are open to all.
func sources(svc *corev1.Service, family netip.Addr) (out []netip.Prefix) {
	for _, t := range svc.Spec.LoadBalancerSourceRanges {
		p, err := netip.ParsePrefix(strings.TrimSpace(t))
		switch {
		case err != nil || p.Addr().Is4() != family.Is4():
		case p.Bits() == 0:
			return nil
		default:
			out = append(out, p.Masked())
		}
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(out)
}

func claim(svc *corev1.Service, port corev1.ServicePort, ips ips, ranges []netip.Prefix, all []endpoint, node Node) Claim {
	c := Claim{Proto: protos[port.Protocol], Frontends: map[Frontend]Flags{}}
	c.Name = string(port.Protocol) + "/" + port.Name + "/" + ips.any.String()
	outside := len(ips.external) > 0 || len(ips.balancer) > 0 || port.NodePort != 0
	wantLocal := insideLocal(svc) || outside && outsideLocal(svc)
	c.Service.Backends, c.Service.Cluster, c.Service.Local = split(all, node, wantLocal)
	if svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		c.Service.Affinity = uint32(corev1.DefaultClientIPServiceAffinitySeconds)
		if a := svc.Spec.SessionAffinityConfig; a != nil && a.ClientIP != nil && a.ClientIP.TimeoutSeconds != nil {
			c.Service.Affinity = uint32(*a.ClientIP.TimeoutSeconds)
		}
	}

	var inner, outer Flags
	if insideLocal(svc) {
		inner = LocalInside | LocalOutside
	}
	if outsideLocal(svc) {
		outer = LocalOutside
	}
	add := func(flags Flags, number int32, addrs ...netip.Addr) {
		for _, a := range addrs {
			c.Frontends[Frontend{netip.AddrPortFrom(a, uint16(number)), c.Proto}] = flags
		}
	}
	if port.NodePort != 0 {
		add(outer|NodePort, port.NodePort, ips.any)
	}
	add(outer, port.Port, ips.external...)
	if len(ranges) > 0 && len(ips.balancer) > 0 {
		c.Service.Sources = ranges
		outer |= Filtered
		if slices.ContainsFunc(node.Addresses, func(a netip.Addr) bool {
			return slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(a) })
		}) {
			outer |= NodeAllowed
		}
	}
	add(outer, port.Port, ips.balancer...)
	add(inner, port.Port, ips.cluster...)
	return c
}
