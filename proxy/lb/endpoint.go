package lb

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// A Node is what the choice of backends depends on.
type Node struct {
	Name      string
	Zone      string
	Addresses []netip.Addr
}

type endpoint struct {
	Backend
	ready, serving, terminating bool
	nodes, zones                []string // hints
}

// fading is the state in which an endpoint is used for want of a ready one.
func (e endpoint) fading() bool { return e.serving && e.terminating }

// endpoints gathers the endpoints of one port of a service, in one family,
// in the order of their addresses.
func endpoints(eps []*discoveryv1.EndpointSlice, port corev1.ServicePort, family discoveryv1.AddressType, node string) []endpoint {
	at := map[netip.AddrPort]endpoint{}
	for _, s := range eps {
		if s.AddressType != family {
			continue
		}
		for _, p := range s.Ports {
			if !serves(p, port) {
				continue
			}
			for _, e := range s.Endpoints {
				ep, ok := parse(e, uint16(*p.Port), node)
				// Two pods may have one address for a moment: the living one counts.
				if have, twice := at[ep.Addr]; ok && (!twice || have.terminating || !ep.terminating) {
					at[ep.Addr] = ep
				}
			}
		}
	}
	out := make([]endpoint, 0, len(at))
	for _, e := range at {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b endpoint) int { return a.Addr.Compare(b.Addr) })
	return out
}

// serves tells whether p is where the slice serves the service's port.
func serves(p discoveryv1.EndpointPort, port corev1.ServicePort) bool {
	proto := corev1.ProtocolTCP
	if p.Protocol != nil {
		proto = *p.Protocol
	}
	return p.Name != nil && *p.Name == port.Name && proto == port.Protocol && p.Port != nil && *p.Port > 0 && *p.Port < 1<<16
}

func parse(e discoveryv1.Endpoint, port uint16, node string) (endpoint, bool) {
	if len(e.Addresses) == 0 {
		return endpoint{}, false
	}
	addr, err := netip.ParseAddr(e.Addresses[0])
	if err != nil {
		return endpoint{}, false
	}
	ep := endpoint{
		Backend:     Backend{Addr: netip.AddrPortFrom(addr.Unmap(), port), Local: e.NodeName != nil && *e.NodeName == node},
		ready:       is(e.Conditions.Ready, true),
		serving:     is(e.Conditions.Serving, true),
		terminating: is(e.Conditions.Terminating, false),
	}
	if e.Hints != nil {
		for _, z := range e.Hints.ForZones {
			ep.zones = append(ep.zones, z.Name)
		}
		for _, n := range e.Hints.ForNodes {
			ep.nodes = append(ep.nodes, n.Name)
		}
	}
	return ep, true
}

func is(b *bool, otherwise bool) bool {
	if b == nil {
		return otherwise
	}
	return *b
}

// split sorts out which endpoints clients without a local policy use, and
// which those with one, and lays them out as Service wants them.
func split(all []endpoint, node Node, wantLocal bool) (backends []Backend, cluster, local int) {
	anywhere := usable(all, near(all, node))
	var here []endpoint
	if wantLocal {
		here = usable(all, func(e endpoint) bool { return e.Local })
	}
	backends = make([]Backend, 0, len(all))
	only := func(in, out []endpoint) {
		for _, e := range in {
			if !slices.ContainsFunc(out, func(o endpoint) bool { return o.Addr == e.Addr }) {
				backends = append(backends, e.Backend)
			}
		}
	}
	only(anywhere, here)
	first := len(backends)
	for _, e := range anywhere {
		if slices.ContainsFunc(here, func(o endpoint) bool { return o.Addr == e.Addr }) {
			backends = append(backends, e.Backend)
		}
	}
	cluster = len(backends)
	only(here, anywhere)
	return backends, cluster, len(backends) - first
}

// usable picks the ready endpoints that fit; without one, those that fade.
// The latter need not be near, as upstream has it, but must be local where
// that is asked for, which fits decides.
func usable(all []endpoint, fits func(endpoint) bool) (out []endpoint) {
	for _, want := range []func(endpoint) bool{
		func(e endpoint) bool { return e.ready },
		endpoint.fading,
	} {
		for _, e := range all {
			if want(e) && fits(e) {
				out = append(out, e)
			}
		}
		if out != nil {
			return out
		}
	}
	return nil
}

// near returns which endpoints the hints allot to the node: those for the
// node itself, else those for its zone, else all. Hints count only if every
// ready endpoint has one and there is a ready one for us.
func near(all []endpoint, node Node) func(endpoint) bool {
	for _, by := range []func(endpoint) (hints []string, us string){
		func(e endpoint) ([]string, string) { return e.nodes, node.Name },
		func(e endpoint) ([]string, string) { return e.zones, node.Zone },
	} {
		every, ours := true, false
		for _, e := range all {
			if hints, us := by(e); e.ready {
				every = every && len(hints) > 0
				ours = ours || slices.Contains(hints, us)
			}
		}
		if every && ours {
			return func(e endpoint) bool {
				hints, us := by(e)
				return slices.Contains(hints, us)
			}
		}
	}
	return func(endpoint) bool { return true }
}
