package dns

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// What knew an answer, as CoreDNS calls it.
const (
	byZone  = "kubernetes"
	byOther = "forward"
	byCache = "cache"
)

// answerer answers one message after another. It is safe for concurrent use.
type answerer struct {
	zone    *Zone
	synced  func() bool
	forward *forwarder
	metrics *Metrics
	server  string // what it is called in metrics
}

// serve answers a message, whatever it may be.
func (s *answerer) serve(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) {
	began := time.Now()
	m, by := s.guarded(ctx, r)
	proto, family := "udp", "1"
	size := packetSize
	switch at := w.RemoteAddr().(type) {
	case *net.TCPAddr:
		proto, size = "tcp", dns.MaxMsgSize
		if at.IP.To4() == nil {
			family = "2"
		}
	case *net.UDPAddr:
		if at.IP.To4() == nil {
			family = "2"
		}
		size = min(size, room(r))
	}
	fit(m, r, size)
	packed, err := m.Pack()
	if err != nil {
		slog.WarnContext(ctx, "answer cannot be packed", "question", r.Question[0].Name, "err", err)
		m = refusal(r, dns.RcodeServerFailure)
		packed, _ = m.Pack() // which has nothing in it that could fail
	}
	if _, err := w.Write(packed); err != nil {
		slog.DebugContext(ctx, "client does not take its answer", "client", w.RemoteAddr(), "err", err)
	}
	zone := "."
	if by == byZone {
		zone = s.zone.Name
	}
	s.metrics.requests.WithLabelValues(s.server, zone, "", proto, family, rtype(qtype(r))).Inc()
	s.metrics.responses.WithLabelValues(s.server, zone, "", rcode(m.Rcode), by).Inc()
	s.metrics.requestSize.WithLabelValues(s.server, zone, "", proto).Observe(float64(r.Len()))
	s.metrics.responseSize.WithLabelValues(s.server, zone, "", proto).Observe(float64(len(packed)))
	s.metrics.duration.WithLabelValues(s.server, zone, "").Observe(time.Since(began).Seconds())
}

func qtype(r *dns.Msg) uint16 {
	if len(r.Question) == 0 {
		return dns.TypeNone
	}
	return r.Question[0].Qtype
}

// guarded lets one bad question not take all others with it.
func (s *answerer) guarded(ctx context.Context, r *dns.Msg) (m *dns.Msg, by string) {
	defer func() {
		if fault := recover(); fault != nil {
			s.metrics.panics.Inc()
			slog.ErrorContext(ctx, "answer to a question", "question", r.Question, "fault", fault, "stack", string(debug.Stack()))
			m, by = refusal(r, dns.RcodeServerFailure), ""
		}
	}()
	return s.answer(ctx, r)
}

// answer says what is to be said to a message, and what knew it.
func (s *answerer) answer(ctx context.Context, r *dns.Msg) (m *dns.Msg, by string) {
	if code := objection(r); code != dns.RcodeSuccess {
		return refusal(r, code), ""
	}
	q := r.Question[0]
	own, mine := s.zone.Answer(q, rand.IntN)
	switch {
	case s.zone.Holds(q.Name) && !s.synced():
		// What is not known yet may well be there.
		return refusal(r, dns.RcodeServerFailure), byZone
	case !mine:
		return s.others(ctx, r)
	}
	m = new(dns.Msg).SetReply(r)
	m.Authoritative, m.RecursionAvailable = true, true
	m.Rcode, m.Answer, m.Ns, m.Extra = own.Rcode, own.Answer, own.Authority, own.Extra
	if own.Next != "" {
		s.follow(ctx, m, r, own.Next)
	}
	return m, byZone
}

// follow adds what others know of the name that an alias leads to.
func (s *answerer) follow(ctx context.Context, m, r *dns.Msg, name string) {
	ask := r.Copy()
	ask.Question[0].Name = name
	got, _, err := s.forward.ask(ctx, ask)
	if err != nil {
		slog.DebugContext(ctx, "alias leads nowhere", "alias", r.Question[0].Name, "to", name, "err", err)
		m.Rcode = dns.RcodeServerFailure
		return
	}
	m.Rcode, m.Truncated = got.Rcode, got.Truncated
	m.Answer = append(m.Answer, got.Answer...)
	m.Ns, m.Extra = got.Ns, plain(got.Extra)
}

// others answers with what others say.
func (s *answerer) others(ctx context.Context, r *dns.Msg) (m *dns.Msg, by string) {
	got, cached, err := s.forward.ask(ctx, r)
	if err != nil {
		slog.DebugContext(ctx, "question to others", "question", r.Question[0].Name, "err", err)
		return refusal(r, dns.RcodeServerFailure), byOther
	}
	m = new(dns.Msg).SetReply(r)
	m.RecursionAvailable, m.AuthenticatedData, m.Truncated = true, got.AuthenticatedData, got.Truncated
	m.Rcode, m.Answer, m.Ns, m.Extra = got.Rcode, got.Answer, got.Ns, plain(got.Extra)
	// Who asked first may have spelled the name in another way.
	for _, rr := range m.Answer {
		if h := rr.Header(); strings.EqualFold(h.Name, r.Question[0].Name) {
			h.Name = r.Question[0].Name
		}
	}
	if cached {
		return m, byCache
	}
	return m, byOther
}

// plain is without the record that is about the message itself.
func plain(records []dns.RR) (rest []dns.RR) {
	for _, r := range records {
		if r.Header().Rrtype != dns.TypeOPT {
			rest = append(rest, r)
		}
	}
	return rest
}

// objection is the code by which a message is turned down, if it is.
func objection(r *dns.Msg) int {
	if r.Opcode != dns.OpcodeQuery {
		return dns.RcodeNotImplemented
	}
	if len(r.Question) != 1 {
		return dns.RcodeFormatError
	}
	if opt := r.IsEdns0(); opt != nil && opt.Version() != 0 {
		return dns.RcodeBadVers
	}
	q := r.Question[0]
	switch {
	case q.Qclass != dns.ClassINET:
		return dns.RcodeRefused
	case q.Qtype == dns.TypeANY:
		return dns.RcodeSuccess
	case q.Qtype == dns.TypeNone, q.Qtype == dns.TypeOPT:
		return dns.RcodeFormatError
	case q.Qtype >= 128 && q.Qtype <= 255: // transfers and the like
		return dns.RcodeRefused
	}
	return dns.RcodeSuccess
}

// refusal is an answer that says nothing but why.
func refusal(r *dns.Msg, code int) *dns.Msg {
	m := new(dns.Msg).SetReply(r)
	m.RecursionAvailable, m.Rcode = true, code
	return m
}

// room is how large an answer over UDP may be.
func room(r *dns.Msg) int {
	if opt := r.IsEdns0(); opt != nil {
		return max(dns.MinMsgSize, int(opt.UDPSize()))
	}
	return dns.MinMsgSize
}

// fit gives an answer the form that the client can take.
func fit(m, r *dns.Msg, size int) {
	if opt := r.IsEdns0(); opt != nil {
		m.SetEdns0(packetSize, opt.Do())
	}
	said := m.Truncated
	answers, authority := len(m.Answer), len(m.Ns)
	m.Truncate(size)
	// As RFC 2181: what was left away counts only where it was asked for.
	m.Truncated = said || len(m.Answer) < answers || len(m.Ns) < authority
}
