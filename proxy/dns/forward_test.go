package dns

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// An upstreamServer is a server that is asked of others.
type upstreamServer struct {
	addr  netip.AddrPort
	asked atomic.Int32 // without probes
	tcp   atomic.Int32 // of these, over TCP
}

// newUpstream starts a server whose answers come from say, for questions that
// are no probes. It sends nothing that is no response.
func newUpstream(t *testing.T, address string, say func(dns.Question, *dns.Msg)) *upstreamServer {
	t.Helper()
	sock, err := listen(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	u := &upstreamServer{addr: sock.addr()}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		if r.Question[0].Name != "." {
			u.asked.Add(1)
			if _, tcp := w.RemoteAddr().(*net.TCPAddr); tcp {
				u.tcp.Add(1)
			}
			say(r.Question[0], m)
			if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
				m.Truncate(room(r))
			}
		}
		if m.Response {
			_ = w.WriteMsg(m) // who asked may be gone
		}
	})
	var running sync.WaitGroup
	for _, srv := range sock.servers(handler, 100, func() {}) {
		up := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(up) }
		running.Go(func() { _ = srv.ActivateAndServe() })
		<-up
		t.Cleanup(func() { _ = srv.Shutdown() })
	}
	return u
}

// address adds the answer to a question for an address.
func address(q dns.Question, m *dns.Msg, ttl int, ip string) {
	if q.Qtype != dns.TypeA {
		return
	}
	m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: uint32(ttl)}, A: net.ParseIP(ip)})
}

// missing makes m say that there is no such name, for as long as ttl, if not 0.
func missing(m *dns.Msg, ttl int) {
	m.Rcode = dns.RcodeNameError
	if ttl > 0 {
		m.Ns = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: "example.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: uint32(ttl)}, Ns: "a.", Mbox: "b.", Minttl: uint32(ttl)}}
	}
}

func forwarding(t *testing.T, to ...netip.AddrPort) *running {
	return run(t, fake.NewClientset(), func(c *Config) { c.Upstreams = to }).ready(t)
}

// dead is an address where nobody listens.
func dead(t *testing.T) netip.AddrPort {
	sock, err := listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sock.close() }()
	return sock.addr()
}

// silent is an address where somebody listens and never says a word.
func silent(t *testing.T) netip.AddrPort {
	sock, err := listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sock.close() })
	return sock.addr()
}

func TestForwards(t *testing.T) {
	up := newUpstream(t, "127.0.0.1:0", func(q dns.Question, m *dns.Msg) {
		switch strings.ToLower(q.Name) {
		case "www.example.":
			address(q, m, 60, "192.0.2.1")
		case "brief.example.":
			address(q, m, 0, "192.0.2.2")
		case "none.example.":
			missing(m, 60)
		default:
			missing(m, 0)
		}
	})
	s := forwarding(t, up.addr)
	for _, c := range []struct {
		name, want string
		times      int32 // that it is asked upstream for, of two
	}{
		{"www.example", "NOERROR 192.0.2.1", 1},
		{"brief.example", "NOERROR 192.0.2.2", 2},
		{"none.example", "NXDOMAIN", 1},
		{"unsaid.example", "NXDOMAIN", 2},
	} {
		up.asked.Store(0)
		for _, name := range []string{c.name, strings.ToUpper(c.name)} {
			m := s.ask(t, dns.TypeA, name)
			if got := brief(m); got != c.want {
				t.Errorf("%s: %s", name, got)
			}
			if m.Authoritative || !m.RecursionAvailable || m.Question[0].Name != dns.Fqdn(name) || len(m.Answer) > 0 && m.Answer[0].Header().Name != dns.Fqdn(name) {
				t.Errorf("%s: %v", name, m)
			}
		}
		if got := up.asked.Load(); got != c.times {
			t.Errorf("%s is asked for %d times, not %d", c.name, got, c.times)
		}
	}
	up.asked.Store(0)
	if got := brief(s.ask(t, dns.TypePTR, "9.0.96.10.in-addr.arpa")); got != "NXDOMAIN" || up.asked.Load() != 1 {
		t.Errorf("an address that is not ours: %s, asked %d times", got, up.asked.Load())
	}
	if got := brief(s.ask(t, dns.TypeA, "none.shop.svc.cluster.local")); got != "NXDOMAIN" || up.asked.Load() != 1 {
		t.Errorf("a name that is ours: %s, and others are asked", got)
	}
}

func TestForwardsLargeAnswers(t *testing.T) {
	up := newUpstream(t, "127.0.0.1:0", func(q dns.Question, m *dns.Msg) {
		for i := range 200 {
			address(q, m, 60, fmt.Sprintf("192.0.2.%d", i))
		}
	})
	s := forwarding(t, up.addr)
	if m := s.ask(t, dns.TypeA, "large.example"); !m.Truncated || m.Len() > dns.MinMsgSize {
		t.Errorf("over UDP: truncated %t, %d bytes", m.Truncated, m.Len())
	}
	m := s.send(t, "tcp", new(dns.Msg).SetQuestion("large.example.", dns.TypeA))
	if m.Truncated || len(m.Answer) != 200 {
		t.Errorf("over TCP: truncated %t, %d answers", m.Truncated, len(m.Answer))
	}
	if up.tcp.Load() != 1 {
		t.Errorf("asked %d times over TCP", up.tcp.Load())
	}
}

func TestFallsBack(t *testing.T) {
	t.Parallel()
	good := func(q dns.Question, m *dns.Msg) { address(q, m, 60, "192.0.2.1") }
	failing := newUpstream(t, "127.0.0.1:0", func(_ dns.Question, m *dns.Msg) { m.Rcode = dns.RcodeServerFailure })
	liar := newUpstream(t, "127.0.0.1:0", func(q dns.Question, m *dns.Msg) {
		m.Question[0].Name = "other.example."
		address(q, m, 60, "192.0.2.66")
	})
	for name, first := range map[string]netip.AddrPort{"dead": dead(t), "silent": silent(t), "failing": failing.addr, "another question": liar.addr} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			second := newUpstream(t, "127.0.0.1:0", good)
			s := forwarding(t, first, second.addr)
			if got := brief(s.ask(t, dns.TypeA, "www.example")); got != "NOERROR 192.0.2.1" {
				t.Errorf("%s", got)
			}
			n := 0
			eventually(t, "nobody waits for the first", func() bool {
				n++
				began := time.Now()
				got := brief(s.ask(t, dns.TypeA, fmt.Sprintf("%d.example", n)))
				return got == "NOERROR 192.0.2.1" && time.Since(began) < tryTimeout/2
			})
		})
	}
}

// TestNobody holds that a question fails at once where nobody can answer it,
// and is answered again once somebody can.
func TestNobody(t *testing.T) {
	t.Parallel()
	at := silent(t)
	gone := dead(t)
	for name, to := range map[string][]netip.AddrPort{"none": nil, "dead": {gone}, "silent": {at}, "both": {gone, at}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := forwarding(t, to...)
			eventually(t, "a question fails at once", func() bool {
				began := time.Now()
				got := brief(s.ask(t, dns.TypeA, "www.example"))
				return got == "SERVFAIL" && time.Since(began) < tryTimeout/2
			})
			if got := brief(s.ask(t, dns.TypeA, "none.shop.svc.cluster.local")); got != "NXDOMAIN" {
				t.Errorf("a name that is ours: %s", got)
			}
		})
	}
	t.Run("comes back", func(t *testing.T) {
		t.Parallel()
		at := dead(t)
		s := forwarding(t, at)
		eventually(t, "it is seen that nobody is there", func() bool { return s.forward.upstreams[0].down.Load() })
		newUpstream(t, at.String(), func(q dns.Question, m *dns.Msg) { address(q, m, 60, "192.0.2.1") })
		eventually(t, "it is seen that somebody is", func() bool { return brief(s.ask(t, dns.TypeA, "www.example")) == "NOERROR 192.0.2.1" })
	})
}

func TestAsksNotItself(t *testing.T) {
	t.Parallel()
	t.Run("own address", func(t *testing.T) {
		s := run(t, fake.NewClientset(), func(c *Config) {
			at := dead(t)
			c.Listen, c.Upstreams = []string{at.String()}, []netip.AddrPort{at}
		}).ready(t)
		if len(s.forward.upstreams) != 0 {
			t.Error("it is asked")
		}
		if got := brief(s.ask(t, dns.TypeA, "www.example")); got != "SERVFAIL" {
			t.Error(got)
		}
	})
	t.Run("any address", func(t *testing.T) {
		at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.53"), dead(t).Port())
		s := run(t, fake.NewClientset(), func(c *Config) {
			c.Listen, c.Upstreams = []string{fmt.Sprintf(":%d", at.Port())}, []netip.AddrPort{at}
		})
		if len(s.forward.upstreams) != 0 {
			t.Error("it is asked")
		}
	})
	t.Run("service", func(t *testing.T) {
		up := newUpstream(t, "127.0.0.2:0", func(q dns.Question, m *dns.Msg) { address(q, m, 60, "192.0.2.1") })
		s := run(t, fake.NewClientset(clusterIP("kube-system", "kube-dns", "127.0.0.2")), func(c *Config) { c.Upstreams = []netip.AddrPort{up.addr} }).ready(t)
		if got := brief(s.ask(t, dns.TypeA, "www.example")); got != "SERVFAIL" || up.asked.Load() > 0 {
			t.Errorf("%s, asked %d times", got, up.asked.Load())
		}
	})
	t.Run("circle", func(t *testing.T) {
		t.Parallel()
		var s *running
		started := make(chan struct{})
		up := newUpstream(t, "127.0.0.1:0", func(q dns.Question, m *dns.Msg) {
			<-started
			ask := &dns.Msg{MsgHdr: dns.MsgHdr{Id: dns.Id(), RecursionDesired: true}, Question: []dns.Question{q}}
			got, _, err := (&dns.Client{Timeout: patience}).Exchange(ask, s.Addrs()[0].String())
			if err != nil {
				m.Response = false
				return
			}
			m.Rcode = got.Rcode
		})
		s = forwarding(t, up.addr)
		close(started)
		if got := brief(s.ask(t, dns.TypeA, "www.example")); got != "SERVFAIL" || up.asked.Load() > 10 {
			t.Errorf("%s, asked %d times", got, up.asked.Load())
		}
	})
}

func TestAliasOutside(t *testing.T) {
	up := newUpstream(t, "127.0.0.1:0", func(q dns.Question, m *dns.Msg) {
		if q.Name == "www.example." {
			address(q, m, 60, "192.0.2.1")
		} else {
			missing(m, 60)
		}
	})
	alias := func(name, to string) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: to}}
	}
	client := fake.NewClientset(alias("good", "www.example"), alias("bad", "none.example"))
	s := run(t, client, func(c *Config) { c.Upstreams = []netip.AddrPort{up.addr} }).ready(t)
	for _, c := range []struct {
		rtype      uint16
		name, want string
	}{
		{dns.TypeA, "good", "NOERROR www.example. 192.0.2.1"},
		{dns.TypeAAAA, "good", "NOERROR www.example."},
		{dns.TypeCNAME, "good", "NOERROR www.example."},
		{dns.TypeA, "bad", "NXDOMAIN none.example."},
	} {
		if got := brief(s.ask(t, c.rtype, c.name+".shop.svc.cluster.local")); got != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
	}
	lonely := run(t, client, nil).ready(t)
	if got := brief(lonely.ask(t, dns.TypeA, "good.shop.svc.cluster.local")); got != "SERVFAIL www.example." {
		t.Errorf("where nobody can be asked: %s", got)
	}
	if got := brief(lonely.ask(t, dns.TypeCNAME, "good.shop.svc.cluster.local")); got != "NOERROR www.example." {
		t.Errorf("where nobody has to be asked: %s", got)
	}
}

func TestLimitsQuestions(t *testing.T) {
	wait := make(chan struct{})
	up := newUpstream(t, "127.0.0.1:0", func(q dns.Question, m *dns.Msg) { <-wait; address(q, m, 60, "192.0.2.1") })
	s := run(t, fake.NewClientset(), func(c *Config) { c.Upstreams, c.Forwards = []netip.AddrPort{up.addr}, 1 }).ready(t)
	first := make(chan string)
	go func() {
		m, _, err := (&dns.Client{Timeout: patience}).Exchange(new(dns.Msg).SetQuestion("first.example.", dns.TypeA), s.Addrs()[0].String())
		if err != nil {
			first <- err.Error()
			return
		}
		first <- brief(m)
	}()
	eventually(t, "the first waits", func() bool { return up.asked.Load() == 1 })
	if got := brief(s.ask(t, dns.TypeA, "second.example")); got != "SERVFAIL" || up.asked.Load() != 1 {
		t.Errorf("the second: %s", got)
	}
	close(wait)
	if got := <-first; got != "NOERROR 192.0.2.1" {
		t.Errorf("the first: %s", got)
	}
}

func TestMemory(t *testing.T) {
	var c memory
	now := time.Unix(1e9, 0)
	answer := func(name string, ttl, n int) *dns.Msg {
		m := new(dns.Msg).SetQuestion(name, dns.TypeA)
		for range n {
			address(m.Question[0], m, ttl, "192.0.2.1")
		}
		return m
	}
	c.put(question{name: "a.", rtype: dns.TypeA}, answer("a.", 60, 1), now)
	if m := c.get(question{name: "a.", rtype: dns.TypeA}, now.Add(20*time.Second)); m == nil || m.Answer[0].Header().Ttl != 40 {
		t.Errorf("after a while: %v", m)
	}
	for name, q := range map[string]question{
		"type": {name: "a.", rtype: dns.TypeAAAA}, "name": {name: "b.", rtype: dns.TypeA}, "dnssec": {name: "a.", rtype: dns.TypeA, do: true},
	} {
		if c.get(q, now) != nil {
			t.Errorf("an answer to another %s", name)
		}
	}
	if m := c.get(question{name: "a.", rtype: dns.TypeA}, now.Add(time.Minute)); m != nil || c.len() != 0 {
		t.Errorf("after its time: %v", m)
	}
	c.put(question{name: "long.", rtype: dns.TypeA}, answer("long.", 86400, 1), now)
	if c.get(question{name: "long.", rtype: dns.TypeA}, now.Add(maxHit)) != nil {
		t.Error("remembered for too long")
	}
	for i := range 2 * maxEntries {
		name := fmt.Sprintf("n%d.", i)
		c.put(question{name: name, rtype: dns.TypeA}, answer(name, 60, 1), now)
		c.get(question{name: "n0.", rtype: dns.TypeA}, now)
	}
	if c.len() != maxEntries || c.get(question{name: "n0.", rtype: dns.TypeA}, now) == nil || c.get(question{name: "n1.", rtype: dns.TypeA}, now) != nil {
		t.Errorf("%d remembered, and not those that are asked for", c.len())
	}
	for i := range maxEntries {
		name := fmt.Sprintf("n%d.", i)
		c.put(question{name: name, rtype: dns.TypeA}, answer(name, 60, 400), now)
	}
	if c.bytes > maxBytes || c.len() >= maxEntries {
		t.Errorf("%d bytes in %d answers", c.bytes, c.len())
	}
}

func TestSystem(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("search example\nnameserver 192.0.2.1\nnameserver fe80::1%lo\noptions ndots:5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := System(path); err != nil || fmt.Sprint(got) != "[192.0.2.1:53 [fe80::1%lo]:53]" {
		t.Error(got, err)
	}
	if got, err := Servers([]string{"192.0.2.1", "192.0.2.2:5353", "[2001:db8::1]:54", "2001:db8::2"}); err != nil || fmt.Sprint(got) != "[192.0.2.1:53 192.0.2.2:5353 [2001:db8::1]:54 [2001:db8::2]:53]" {
		t.Error(got, err)
	}
	if got, err := Servers([]string{"dns.example"}); err == nil {
		t.Error("taken:", got)
	}
}
