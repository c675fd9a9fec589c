package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

// Why a question is not put to others.
var (
	errNobody = errors.New("no upstream server answers")
	errBusy   = errors.New("too many questions wait for upstream servers")
)

// How long to wait for others. A client waits five seconds, and then asks again.
const (
	tryTimeout   = 1500 * time.Millisecond
	askTimeout   = 4 * time.Second
	probeTimeout = time.Second
	minProbe     = 500 * time.Millisecond // between probes of one server
	maxProbe     = 5 * time.Second
)

// packetSize is how large a UDP packet may be that surely comes through in
// one piece.
const packetSize = 1232

// A forwarder puts questions to upstream servers, in the order in which they
// are given, and remembers the answers.
//
// A server that does not answer is probed, and while the probes fail no
// question waits for it: where there is no other, the answer is an error at
// once. Probes go out only where there are questions.
type forwarder struct {
	upstreams []*upstream
	self      func(netip.AddrPort) bool // leads to this very server
	slots     chan struct{}
	flights   singleflight.Group
	memory    memory
	metrics   *Metrics
}

// An upstream is a server that others are asked of.
type upstream struct {
	addr netip.AddrPort

	down    atomic.Bool
	probing atomic.Bool
	fails   atomic.Int32 // probes in a row
	last    atomic.Int64 // probe, in Unix nanoseconds
}

// newForwarder asks at most limit questions at a time.
func newForwarder(servers []netip.AddrPort, limit int, self func(netip.AddrPort) bool, metrics *Metrics) *forwarder {
	f := &forwarder{self: self, slots: make(chan struct{}, limit), metrics: metrics}
	for _, s := range servers {
		f.upstreams = append(f.upstreams, &upstream{addr: s})
	}
	return f
}

// start finds out which servers are there, so that no question has to.
func (f *forwarder) start(ctx context.Context) {
	for _, u := range f.upstreams {
		f.probe(ctx, u)
	}
}

// ask returns what others say to a question. The answer is the caller's own,
// but for its header, which is not yet that of an answer to the caller.
func (f *forwarder) ask(ctx context.Context, r *dns.Msg) (m *dns.Msg, cached bool, err error) {
	q := asked(r)
	if m := f.memory.get(q, time.Now()); m != nil {
		f.metrics.hit(m)
		return m, true, nil
	}
	f.metrics.misses.Inc()
	if !f.ready(ctx) {
		return nil, false, errNobody
	}
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	default:
		f.metrics.rejects.Inc()
		return nil, false, errBusy
	}
	// All who ask for the same wait for one answer: if a server that is asked
	// asks here in turn, it gets none, and the circle ends.
	key := fmt.Sprintf("%s %d %t %t", q.name, q.rtype, q.do, q.cd)
	got, err, shared := f.flights.Do(key, func() (any, error) {
		m, err := f.try(ctx, r)
		if err == nil {
			f.memory.put(q, m, time.Now())
		}
		return m, err
	})
	if err != nil {
		return nil, false, err
	}
	m = got.(*dns.Msg)
	if shared {
		m = m.Copy()
	}
	return m, false, nil
}

// ready tells whether there is a server that may answer. Those of which that
// is not so are probed.
func (f *forwarder) ready(ctx context.Context) (any bool) {
	for _, u := range f.upstreams {
		if u.down.Load() {
			f.probe(ctx, u)
		} else if !f.self(u.addr) {
			any = true
		}
	}
	if !any {
		f.metrics.broken.Inc()
	}
	return any
}

// try asks one server after another, and once more where none answers.
func (f *forwarder) try(ctx context.Context, r *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var unhelpful *dns.Msg
	last := errNobody
	for range 2 {
		for _, u := range f.upstreams {
			if u.down.Load() || f.self(u.addr) || ctx.Err() != nil {
				continue
			}
			m, err := f.exchange(ctx, u, r)
			switch {
			case err != nil:
				f.probe(ctx, u)
				last = fmt.Errorf("ask %s: %w", u.addr, err)
			case m.Rcode == dns.RcodeServerFailure || m.Rcode == dns.RcodeRefused || m.Rcode == dns.RcodeNotImplemented:
				unhelpful = m
			default:
				return m, nil
			}
		}
		if unhelpful != nil {
			return unhelpful, nil // and asked again would hardly say more
		}
	}
	return nil, last
}

// exchange asks one server, over TCP if the answer is too large for UDP.
func (f *forwarder) exchange(ctx context.Context, u *upstream, r *dns.Msg) (*dns.Msg, error) {
	q := r.Question[0]
	ask := &dns.Msg{
		MsgHdr:   dns.MsgHdr{Id: dns.Id(), RecursionDesired: r.RecursionDesired, CheckingDisabled: r.CheckingDisabled, AuthenticatedData: r.AuthenticatedData},
		Question: []dns.Question{q},
	}
	ask.SetEdns0(packetSize, asked(r).do)
	began := time.Now()
	m, err := exchange(ctx, "udp", u.addr.String(), ask, tryTimeout)
	if err == nil && m.Truncated {
		var whole *dns.Msg
		if whole, err = exchange(ctx, "tcp", u.addr.String(), ask, tryTimeout); err == nil {
			m = whole
		} else {
			err = nil // the beginning is better than nothing, and says that it is one
		}
	}
	if err != nil {
		return nil, err
	}
	f.metrics.upstream.WithLabelValues("forward", u.addr.String(), rcode(m.Rcode)).Observe(time.Since(began).Seconds())
	return m, nil
}

// exchange asks a server once.
func exchange(ctx context.Context, network, addr string, ask *dns.Msg, timeout time.Duration) (*dns.Msg, error) {
	client := &dns.Client{Net: network, Timeout: timeout}
	m, _, err := client.ExchangeContext(ctx, ask, addr)
	if err != nil {
		return nil, err
	}
	q := ask.Question[0]
	if !m.Response || len(m.Question) != 1 || m.Question[0].Qtype != q.Qtype || !strings.EqualFold(m.Question[0].Name, q.Name) {
		return nil, errors.New("the answer is to another question")
	}
	return m, nil
}

// probe finds out, by and by, whether a server answers at all.
func (f *forwarder) probe(ctx context.Context, u *upstream) {
	wait := min(maxProbe, minProbe<<min(u.fails.Load(), 8))
	if time.Since(time.Unix(0, u.last.Load())) < wait || !u.probing.CompareAndSwap(false, true) {
		return
	}
	u.last.Store(time.Now().UnixNano())
	// It goes on when the question that gave cause for it has its answer.
	ctx = context.WithoutCancel(ctx)
	go func() {
		defer u.probing.Store(false)
		ask := new(dns.Msg).SetQuestion(".", dns.TypeNS)
		for range 2 {
			if _, err := exchange(ctx, "udp", u.addr.String(), ask, probeTimeout); err == nil {
				u.fails.Store(0)
				u.down.Store(false)
				return
			}
		}
		u.fails.Add(1)
		u.down.Store(true)
		f.metrics.unhealthy.WithLabelValues("forward", u.addr.String()).Inc()
	}()
}

// parseServer reads an address with or without a port.
func parseServer(text string) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(addr, 53), nil
	}
	return netip.ParseAddrPort(text)
}

// Servers reads the addresses of servers, each with or without a port.
func Servers(list []string) (all []netip.AddrPort, err error) {
	for _, text := range list {
		s, err := parseServer(text)
		if err != nil {
			return nil, fmt.Errorf("address of a server: %w", err)
		}
		all = append(all, s)
	}
	return all, nil
}

// System lists the servers that a file like /etc/resolv.conf names.
func System(path string) ([]netip.AddrPort, error) {
	conf, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, s := range conf.Servers {
		list = append(list, net.JoinHostPort(s, conf.Port))
	}
	return Servers(list)
}
