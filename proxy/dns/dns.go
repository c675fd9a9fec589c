// Package dns answers questions for names: those of a cluster's services and
// pods from what it knows of Services, EndpointSlices and namespaces, and all
// others by asking the servers that the machine asks.
//
// What is known is an Index, and a Zone says what the answers are; neither
// does I/O. A Server keeps an Index by watching the API server, and goes on
// answering from it where the API server is away. That pods ask this server
// is the kubelet's doing.
package dns

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
	"k8s.io/apimachinery/pkg/types"
)

// schema is the version of the specification of what names there are.
const schema = "1.1.0"

// missTTL is for how long, in seconds, one may remember that something is not
// there: short, because what is asked for too early is often made soon.
const missTTL = 5

// maxAliases is how many aliases may lead to one another.
const maxAliases = 8

// A Zone answers for the names of a cluster.
type Zone struct {
	Name    string // as cluster.local., in lower case
	TTL     uint32 // seconds for which answers may be remembered
	Service types.NamespacedName
	Index   *Index
}

// An Answer is what is to be said to a question.
type Answer struct {
	Rcode                    int
	Answer, Authority, Extra []dns.RR

	// Next is the name outside the zone that the last alias of Answer leads
	// to, of which more is to be said. It is empty for none.
	Next string
}

// Answer says what is known of a name. It is not mine where others may know.
// Dice returns a number from 0 to n-1 and decides about the order of
// addresses; nil leaves it as it is.
func (z *Zone) Answer(q dns.Question, dice func(n int) int) (a Answer, mine bool) {
	name := strings.ToLower(q.Name)
	z.Index.mu.RLock()
	defer z.Index.mu.RUnlock()
	if rest, in := z.within(name); in {
		a = z.resolve(q, rest)
	} else if addr, ok := reversed(name); ok {
		if a, mine = z.reverse(q, addr); !mine {
			return Answer{}, false
		}
	} else {
		return Answer{}, false
	}
	if dice != nil {
		shuffle(a.Answer, dice)
	}
	return a, true
}

// Holds tells whether the zone is where a name is looked up.
func (z *Zone) Holds(name string) bool {
	_, in := z.within(strings.ToLower(name))
	return in
}

// Mine tells whether an address leads to this server or one of its likes.
func (z *Zone) Mine(addr netip.Addr) bool {
	z.Index.mu.RLock()
	defer z.Index.mu.RUnlock()
	if s := z.Index.services[z.Service]; s != nil && slices.Contains(s.addrs, addr) {
		return true
	}
	for _, s := range z.Index.of[z.Service] {
		if slices.ContainsFunc(s.endpoints, func(e endpoint) bool { return e.addr == addr }) {
			return true
		}
	}
	return false
}

// within cuts the zone's name off.
func (z *Zone) within(name string) (rest string, in bool) {
	if name == z.Name {
		return "", true
	}
	rest, in = strings.CutSuffix(name, z.Name)
	if !in {
		return "", false
	}
	return strings.CutSuffix(rest, ".")
}

// resolve says what is known of a name in the zone, and goes where aliases lead.
func (z *Zone) resolve(q dns.Question, rest string) (a Answer) {
	for range maxAliases {
		n, known := z.at(rest)
		if !known {
			a.Rcode = dns.RcodeNameError
			a.Authority = []dns.RR{z.soa(z.Name, missTTL)}
			return a
		}
		if n.alias == "" {
			z.say(&a, q, n)
			return a
		}
		alias := &dns.CNAME{Hdr: z.header(q.Name, dns.TypeCNAME), Target: n.alias}
		a.Answer = append(a.Answer, alias)
		if q.Qtype == dns.TypeCNAME || q.Qtype == dns.TypeANY {
			return a
		}
		var in bool
		if rest, in = z.within(strings.ToLower(n.alias)); !in {
			a.Next = n.alias
			return a
		}
		q.Name = n.alias
	}
	return Answer{Rcode: dns.RcodeServerFailure}
}

// say adds what there is at a name of what the question asks for.
func (z *Zone) say(a *Answer, q dns.Question, n node) {
	before := len(a.Answer)
	switch q.Qtype {
	case dns.TypeA, dns.TypeAAAA:
		z.addresses(a, q, n)
	case dns.TypeSRV:
		z.services(a, q, n)
	case dns.TypeTXT:
		if n.text != "" {
			a.Answer = append(a.Answer, &dns.TXT{Hdr: z.header(q.Name, dns.TypeTXT), Txt: []string{n.text}})
		}
	case dns.TypeSOA:
		if n.apex {
			a.Answer = append(a.Answer, z.soa(q.Name, z.TTL))
		}
	case dns.TypeNS:
		if n.apex {
			a.Answer = append(a.Answer, &dns.NS{Hdr: z.header(q.Name, dns.TypeNS), Ns: z.server()})
			if s := z.Index.services[z.Service]; s != nil {
				a.Extra = z.glue(a.Extra, z.server(), s.addrs...)
			}
		}
	case dns.TypeANY:
		// As RFC 8482: all that there is would only help to flood others.
		a.Answer = append(a.Answer, &dns.HINFO{Hdr: z.header(q.Name, dns.TypeHINFO), Cpu: "RFC8482"})
	}
	if len(a.Answer) == before {
		a.Authority = []dns.RR{z.soa(z.Name, missTTL)}
	}
}

// addresses adds those of a name that are of the family asked for, each once.
func (z *Zone) addresses(a *Answer, q dns.Question, n node) {
	if n.srvOnly {
		return
	}
	// A few are compared with one another, which needs no memory.
	var seen map[netip.Addr]bool
	if len(n.peers) > 16 {
		seen = make(map[netip.Addr]bool, len(n.peers))
	}
	first := len(a.Answer)
	add := func(addr netip.Addr) {
		if addr.Is4() != (q.Qtype == dns.TypeA) || seen[addr] || seen == nil && said(a.Answer[first:], addr) {
			return
		}
		if seen != nil {
			seen[addr] = true
		}
		a.Answer = z.glue(a.Answer, q.Name, addr)
	}
	for _, addr := range n.addrs {
		add(addr)
	}
	for _, p := range n.peers {
		add(p.addr)
	}
}

// said tells whether an address is among some records.
func said(records []dns.RR, addr netip.Addr) bool {
	for _, r := range records {
		switch r := r.(type) {
		case *dns.A:
			if got, _ := netip.AddrFromSlice(r.A); got == addr {
				return true
			}
		case *dns.AAAA:
			if got, _ := netip.AddrFromSlice(r.AAAA); got == addr {
				return true
			}
		}
	}
	return false
}

// services adds where a service's ports are, and the addresses of that.
func (z *Zone) services(a *Answer, q dns.Question, n node) {
	type target struct {
		host string
		port uint16
	}
	ports, hosts := map[target]bool{}, map[string][]netip.Addr{}
	add := func(host string, p port, addrs ...netip.Addr) {
		if n.port != "" && (p.name != n.port || p.proto != n.proto) {
			return
		}
		if t := (target{host, p.number}); !ports[t] {
			ports[t] = true
			a.Answer = append(a.Answer, &dns.SRV{Hdr: z.header(q.Name, dns.TypeSRV), Port: p.number, Target: host})
		}
		for _, addr := range addrs {
			if known := hosts[host]; !slices.Contains(known, addr) {
				hosts[host] = append(known, addr)
				a.Extra = z.glue(a.Extra, host, addr)
			}
		}
	}
	for _, p := range n.ports {
		add(n.owner, p, n.addrs...)
	}
	for _, e := range n.peers {
		host := e.label() + "." + n.owner
		for _, p := range e.ports {
			add(host, p, e.addr)
		}
	}
	for _, r := range a.Answer {
		if r, ok := r.(*dns.SRV); ok {
			r.Weight = uint16(max(1, 100/len(ports)))
		}
	}
}

// glue adds the records of a name's addresses.
func (z *Zone) glue(to []dns.RR, name string, addrs ...netip.Addr) []dns.RR {
	for _, addr := range addrs {
		if addr.Is4() {
			to = append(to, &dns.A{Hdr: z.header(name, dns.TypeA), A: addr.AsSlice()})
		} else {
			to = append(to, &dns.AAAA{Hdr: z.header(name, dns.TypeAAAA), AAAA: addr.AsSlice()})
		}
	}
	return to
}

func (z *Zone) header(name string, rtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rtype, Class: dns.ClassINET, Ttl: z.TTL}
}

// server is the name of what answers for the zone.
func (z *Zone) server() string { return "ns.dns." + z.Name }

func (z *Zone) soa(name string, ttl uint32) dns.RR {
	h := z.header(name, dns.TypeSOA)
	h.Ttl = ttl
	return &dns.SOA{
		Hdr: h, Ns: z.server(), Mbox: "hostmaster." + z.Name, Serial: z.Index.changes,
		Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: missTTL,
	}
}

// shuffle changes the order of what is not an alias, which has to stay first.
func shuffle(records []dns.RR, dice func(n int) int) {
	for len(records) > 0 && records[0].Header().Rrtype == dns.TypeCNAME {
		records = records[1:]
	}
	for i := len(records) - 1; i > 0; i-- {
		j := dice(i + 1)
		records[i], records[j] = records[j], records[i]
	}
}
