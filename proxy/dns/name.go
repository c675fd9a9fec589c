package dns

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
	"k8s.io/apimachinery/pkg/types"
)

// A node is what there is at a name.
type node struct {
	apex    bool
	text    string
	alias   string
	addrs   []netip.Addr
	peers   []peer
	ports   []port // of addrs
	srvOnly bool   // a name of the form _port._proto.service

	// Of a service: its name, and the port that is asked for, if one is.
	owner, port, proto string
}

// A peer is an endpoint and the ports that it has.
type peer struct {
	*endpoint

	ports []port
}

// label is what an endpoint is called within its service.
func (e *endpoint) label() string {
	if e.host != "" {
		return e.host
	}
	return dashes.Replace(e.addr.String())
}

var dashes = strings.NewReplacer(".", "-", ":", "-")

// dashed is the address that a label spells with dashes.
func dashed(label string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(strings.ReplaceAll(label, "-", "."))
	if err != nil {
		addr, err = netip.ParseAddr(strings.ReplaceAll(label, "-", ":"))
	}
	return addr.Unmap(), err == nil && addr.Zone() == ""
}

// at finds a name of the zone, which is given without the zone's own name.
// Known without anything there is a name that others stand below.
func (z *Zone) at(rest string) (n node, known bool) {
	switch rest {
	case "":
		return node{apex: true}, true
	case "dns-version":
		return node{text: schema}, true
	case "svc", "pod", "dns":
		return node{}, true
	case "ns.dns":
		if s := z.Index.services[z.Service]; s != nil {
			n.addrs = s.addrs
		}
		return n, true
	}
	labels := strings.Split(rest, ".")
	last := len(labels) - 1
	if last == 0 || slices.Contains(labels, "") {
		return node{}, false
	}
	namespace := labels[last-1]
	switch {
	case labels[last] != "svc" && labels[last] != "pod":
	case last == 1:
		return node{}, z.Index.namespaces.Has(namespace)
	case labels[last] == "svc":
		return z.service(labels[:last-2], types.NamespacedName{Namespace: namespace, Name: labels[last-2]})
	case last == 2:
		// Whether there is such a pod is not known here.
		addr, ok := dashed(labels[0])
		return node{addrs: []netip.Addr{addr}}, ok && z.Index.namespaces.Has(namespace)
	}
	return node{}, false
}

// service finds a service, or a name below it.
func (z *Zone) service(below []string, key types.NamespacedName) (n node, known bool) {
	s := z.Index.services[key]
	if s == nil {
		return n, false
	}
	n.owner = key.Name + "." + key.Namespace + ".svc." + z.Name
	switch {
	case s.external != "":
		n.alias = s.external
		return n, len(below) == 0
	case len(below) == 1 && !strings.HasPrefix(below[0], "_"):
		n.peers = z.peers(key, s, below[0])
		return n, len(n.peers) > 0
	case s.headless:
		n.peers = z.peers(key, s, "")
	default:
		n.addrs, n.ports = s.addrs, s.ports
	}
	switch len(below) {
	case 0:
		return n, !s.headless || len(n.peers) > 0
	case 1:
		_, known = n.find(func(p port) bool { return p.name != "" && "_"+p.proto == below[0] })
		return node{}, known
	case 2:
		var p port
		p, known = n.find(func(p port) bool { return p.name != "" && "_"+p.name == below[0] && "_"+p.proto == below[1] })
		n.srvOnly, n.port, n.proto = true, p.name, p.proto
		return n, known
	}
	return node{}, false
}

// find finds a port.
func (n *node) find(right func(port) bool) (port, bool) {
	if i := slices.IndexFunc(n.ports, right); i >= 0 {
		return n.ports[i], true
	}
	for _, e := range n.peers {
		if i := slices.IndexFunc(e.ports, right); i >= 0 {
			return e.ports[i], true
		}
	}
	return port{}, false
}

// peers are the endpoints of a service that count, or those of them that are
// called host where it is not empty.
func (z *Zone) peers(key types.NamespacedName, s *service, host string) (all []peer) {
	addr, dashed := dashed(host)
	for _, sl := range z.Index.of[key] {
		if host == "" {
			all = slices.Grow(all, len(sl.endpoints))
		}
		for i := range sl.endpoints {
			e := &sl.endpoints[i]
			switch {
			case !e.ready && !s.unready:
			case host == "", e.host == host, e.host == "" && dashed && e.addr == addr:
				all = append(all, peer{e, sl.ports})
			}
		}
	}
	return all
}

// reverse says which names have an address. It is mine where there are any.
func (z *Zone) reverse(q dns.Question, addr netip.Addr) (a Answer, mine bool) {
	var names []string
	for _, key := range z.Index.owners[addr] {
		names = append(names, key.Name+"."+key.Namespace+".svc."+z.Name)
	}
	for _, h := range z.Index.hosts[addr] {
		s := z.Index.services[h.service]
		if s != nil && s.external == "" && (h.endpoint.ready || s.unready) {
			names = append(names, h.endpoint.host+"."+h.service.Name+"."+h.service.Namespace+".svc."+z.Name)
		}
	}
	if len(names) == 0 {
		return Answer{}, false
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if q.Qtype != dns.TypePTR {
		root := "in-addr.arpa."
		if addr.Is6() {
			root = "ip6.arpa."
		}
		return Answer{Authority: []dns.RR{z.soa(root, missTTL)}}, true
	}
	for _, name := range names {
		a.Answer = append(a.Answer, &dns.PTR{Hdr: z.header(q.Name, dns.TypePTR), Ptr: name})
	}
	return a, true
}

// reversed is the address that a name below in-addr.arpa or ip6.arpa stands for.
func reversed(name string) (addr netip.Addr, ok bool) {
	if rest, in := strings.CutSuffix(name, ".in-addr.arpa."); in {
		parts := strings.Split(rest, ".")
		slices.Reverse(parts)
		addr, err := netip.ParseAddr(strings.Join(parts, "."))
		return addr, err == nil && addr.Is4()
	}
	rest, in := strings.CutSuffix(name, ".ip6.arpa.")
	if !in || len(rest) != 63 {
		return addr, false
	}
	var b [16]byte
	for i := range 32 {
		digit := strings.IndexByte("0123456789abcdef", rest[62-2*i])
		if digit < 0 || 2*i < 62 && rest[61-2*i] != '.' {
			return addr, false
		}
		b[i/2] = b[i/2]<<4 | byte(digit)
	}
	return netip.AddrFrom16(b), true
}
