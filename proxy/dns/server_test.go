package dns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

// A running server.
type running struct {
	*Server

	stop  context.CancelFunc
	ended chan error
}

// run starts a server on loopback, and ends it with the test.
func run(t *testing.T, client kubernetes.Interface, change func(*Config)) *running {
	t.Helper()
	cfg := Config{Client: client, Listen: []string{"127.0.0.1:0"}, HTTP: "127.0.0.1:0"}
	if change != nil {
		change(&cfg)
	}
	s, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{s, cancel, make(chan error, 1)}
	go func() { r.ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-r.ended; err != nil {
			t.Errorf("server ended with: %v", err)
		}
		r.ended <- nil
	})
	return r
}

// ready waits until the server says that it is.
func (r *running) ready(t *testing.T) *running {
	t.Helper()
	eventually(t, "the server is ready", func() bool { code, _ := r.page(t, "/ready"); return code == http.StatusOK })
	return r
}

func (r *running) page(t *testing.T, path string) (code int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.HTTP().String()+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// send sends a message to the server and returns what comes back.
func (r *running) send(t *testing.T, network string, m *dns.Msg) *dns.Msg {
	t.Helper()
	client := &dns.Client{Net: network, Timeout: patience, UDPSize: dns.MaxMsgSize}
	got, _, err := client.Exchange(m, r.Addrs()[0].String())
	if err != nil {
		t.Fatalf("%s: %v", m.Question[0].Name, err)
	}
	got.Compress = true // so that its length is that of what came
	return got
}

func (r *running) ask(t *testing.T, rtype uint16, name string) *dns.Msg {
	t.Helper()
	return r.send(t, "udp", new(dns.Msg).SetQuestion(dns.Fqdn(name), rtype))
}

// brief is an answer in one line.
func brief(m *dns.Msg) string {
	words := []string{dns.RcodeToString[m.Rcode]}
	for _, r := range m.Answer {
		words = append(words, strings.TrimPrefix(r.String(), r.Header().String()))
	}
	return strings.Join(words, " ")
}

func clusterIP(namespace, name, ip string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.ServiceSpec{ClusterIP: ip, ClusterIPs: []string{ip}, Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}}},
	}
}

// crowd is a headless service with many endpoints.
func crowd(n int) []runtime.Object {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: "crowd-1", Labels: map[string]string{discoveryv1.LabelServiceName: "crowd"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Protocol: new(corev1.ProtocolTCP), Port: new(int32(80))}},
	}
	for i := range n {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.1.%d.%d", i/250, i%250+1)}})
	}
	return []runtime.Object{clusterIP("shop", "crowd", corev1.ClusterIPNone), slice}
}

func TestServes(t *testing.T) {
	client := fake.NewClientset(clusterIP("shop", "web", "10.0.0.7"), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	s := run(t, client, nil).ready(t)
	for _, network := range []string{"udp", "tcp"} {
		q := new(dns.Msg).SetQuestion("Web.shop.svc.cluster.local.", dns.TypeA)
		m := s.send(t, network, q)
		if got := brief(m); got != "NOERROR 10.0.0.7" {
			t.Errorf("over %s: %s", network, got)
		}
		if m.Id != q.Id || !m.Authoritative || !m.RecursionAvailable || !m.RecursionDesired || m.Truncated || m.IsEdns0() != nil {
			t.Errorf("over %s, header: %v", network, m)
		}
		if m.Question[0].Name != "Web.shop.svc.cluster.local." || m.Answer[0].Header().Name != "Web.shop.svc.cluster.local." {
			t.Errorf("over %s the name is spelled anew: %v", network, m)
		}
	}

	services := client.CoreV1().Services("shop")
	if _, err := services.Create(t.Context(), clusterIP("shop", "new", "10.0.0.8"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a new service is known", func() bool { return brief(s.ask(t, dns.TypeA, "new.shop.svc.cluster.local")) == "NOERROR 10.0.0.8" })
	if err := services.Delete(t.Context(), "new", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a service that is gone is not known", func() bool { return brief(s.ask(t, dns.TypeA, "new.shop.svc.cluster.local")) == "NXDOMAIN" })
	slice := crowd(1)[1].(*discoveryv1.EndpointSlice)
	if _, err := services.Create(t.Context(), crowd(1)[0].(*corev1.Service), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.DiscoveryV1().EndpointSlices("shop").Create(t.Context(), slice, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "endpoints are known", func() bool { return brief(s.ask(t, dns.TypeA, "crowd.shop.svc.cluster.local")) == "NOERROR 10.1.0.1" })
}

func TestTruncates(t *testing.T) {
	s := run(t, fake.NewClientset(crowd(100)...), nil).ready(t)
	question := func(room uint16) *dns.Msg {
		m := new(dns.Msg).SetQuestion("crowd.shop.svc.cluster.local.", dns.TypeA)
		if room > 0 {
			m.SetEdns0(room, false)
		}
		return m
	}
	for _, c := range []struct {
		network   string
		room      uint16
		most      int
		truncated bool
	}{{"udp", 0, 512, true}, {"udp", 100, 512, true}, {"udp", 800, 800, true}, {"udp", 4096, packetSize, true}, {"tcp", 0, dns.MaxMsgSize, false}, {"tcp", 512, dns.MaxMsgSize, false}} {
		m := s.send(t, c.network, question(c.room))
		if m.Truncated != c.truncated || m.Len() > c.most || len(m.Answer) == 0 || !c.truncated && len(m.Answer) != 100 {
			t.Errorf("%s %d: truncated %t, %d bytes, %d answers", c.network, c.room, m.Truncated, m.Len(), len(m.Answer))
		}
		if opt := m.IsEdns0(); (opt != nil) != (c.room > 0) || opt != nil && opt.UDPSize() != packetSize {
			t.Errorf("%s %d: what is said of room is %v", c.network, c.room, opt)
		}
	}
	// The addresses that go with an answer may be left away, and nobody has to ask again.
	srv := s.send(t, "udp", new(dns.Msg).SetQuestion("10-1-0-1.crowd.shop.svc.cluster.local.", dns.TypeSRV))
	if srv.Truncated || len(srv.Answer) != 1 || len(srv.Extra) != 1 {
		t.Errorf("SRV: %v", srv)
	}
	// The order is another one each time, and all are there.
	one, two := s.send(t, "tcp", question(0)), s.send(t, "tcp", question(0))
	if brief(one) == brief(two) {
		t.Error("the order stays the same")
	}
	sorted := func(m *dns.Msg) []string { return slices.Sorted(slices.Values(strings.Fields(brief(m)))) }
	if !slices.Equal(sorted(one), sorted(two)) {
		t.Errorf("%s\n%s", brief(one), brief(two))
	}
}

func TestRefuses(t *testing.T) {
	s := run(t, fake.NewClientset(clusterIP("shop", "web", "10.0.0.7")), nil).ready(t)
	question := func(change func(*dns.Msg)) *dns.Msg {
		m := new(dns.Msg).SetQuestion("web.shop.svc.cluster.local.", dns.TypeA)
		change(m)
		return m
	}
	for _, c := range []struct {
		name string
		ask  *dns.Msg
		want int
	}{
		{"class", question(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), dns.RcodeRefused},
		{"any class", question(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }), dns.RcodeRefused},
		{"notify", question(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), dns.RcodeNotImplemented},
		{"update", question(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), dns.RcodeNotImplemented},
		{"transfer", question(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }), dns.RcodeRefused},
		{"two questions", question(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), dns.RcodeFormatError},
		{"version", question(func(m *dns.Msg) { m.SetEdns0(1232, false).IsEdns0().SetVersion(1) }), dns.RcodeBadVers},
	} {
		t.Run(c.name, func(t *testing.T) {
			if m := s.send(t, "udp", c.ask); m.Rcode != c.want || len(m.Answer) > 0 || m.Opcode != c.ask.Opcode {
				t.Errorf("%v", m)
			}
		})
	}
	// What is itself an answer gets none, else two servers could go on for
	// ever: the first thing to come back is for the question after it.
	c, err := (&net.Dialer{}).DialContext(t.Context(), "udp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	conn := &dns.Conn{Conn: c}
	defer func() { _ = conn.Close() }()
	answer := question(func(m *dns.Msg) { m.Response = true })
	after := question(func(*dns.Msg) {})
	if err := errors.Join(conn.WriteMsg(answer), conn.WriteMsg(after), conn.SetReadDeadline(time.Now().Add(patience))); err != nil {
		t.Fatal(err)
	}
	if m, err := conn.ReadMsg(); err != nil || m.Id != after.Id {
		t.Errorf("%v %v", m, err)
	}
}

func TestWaitsForKnowledge(t *testing.T) {
	t.Parallel()
	client := fake.NewClientset(clusterIP("shop", "web", "10.0.0.7"))
	heal := make(chan struct{})
	client.PrependReactor("list", "services", func(clienttesting.Action) (bool, runtime.Object, error) {
		select {
		case <-heal:
			return false, nil, nil
		default:
			return true, nil, errors.New("out of order")
		}
	})
	up := newUpstream(t, "127.0.0.1:0", func(q dns.Question, m *dns.Msg) { address(q, m, 60, "192.0.2.1") })
	s := run(t, client, func(c *Config) { c.Upstreams = []netip.AddrPort{up.addr} })
	eventually(t, "all else is known", func() bool { _, text := s.page(t, "/ready"); return text == "waiting for services\n" })
	if code, _ := s.page(t, "/ready"); code != http.StatusServiceUnavailable {
		t.Errorf("ready: %d", code)
	}
	if code, _ := s.page(t, "/health"); code != http.StatusOK {
		t.Errorf("health: %d", code)
	}
	if got := brief(s.ask(t, dns.TypeA, "web.shop.svc.cluster.local")); got != "SERVFAIL" {
		t.Errorf("what is not known yet: %s", got)
	}
	if got := brief(s.ask(t, dns.TypeA, "www.example.com")); got != "NOERROR 192.0.2.1" {
		t.Errorf("what others know: %s", got)
	}
	close(heal)
	s.ready(t)
	if got := brief(s.ask(t, dns.TypeA, "web.shop.svc.cluster.local")); got != "NOERROR 10.0.0.7" {
		t.Errorf("once it is known: %s", got)
	}
}

func TestEnds(t *testing.T) {
	t.Parallel()
	s := run(t, fake.NewClientset(clusterIP("shop", "web", "10.0.0.7")), func(c *Config) { c.Lameduck = time.Second }).ready(t)
	s.stop()
	eventually(t, "it is not ready for more", func() bool { code, _ := s.page(t, "/ready"); return code == http.StatusServiceUnavailable })
	if got := brief(s.ask(t, dns.TypeA, "web.shop.svc.cluster.local")); got != "NOERROR 10.0.0.7" {
		t.Errorf("while it ends: %s", got)
	}
	select {
	case err := <-s.ended:
		s.ended <- err
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	if c, err := net.DialTimeout("tcp", s.Addrs()[0].String(), patience); err == nil {
		t.Error("it still listens", c.Close())
	}
}

func TestLimitsConnections(t *testing.T) {
	s := run(t, fake.NewClientset(clusterIP("shop", "web", "10.0.0.7")), func(c *Config) { c.TCP = 1 }).ready(t)
	q := new(dns.Msg).SetQuestion("web.shop.svc.cluster.local.", dns.TypeA)
	dial := func() (*dns.Conn, error) {
		c, err := net.DialTimeout("tcp", s.Addrs()[0].String(), patience)
		if err != nil {
			t.Fatal(err)
		}
		conn := &dns.Conn{Conn: c}
		_ = conn.SetDeadline(time.Now().Add(patience))
		if err = conn.WriteMsg(q); err == nil {
			_, err = conn.ReadMsg()
		}
		return conn, err
	}
	first, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	second, err := dial()
	if err == nil {
		t.Error("a second connection is served")
	}
	_, _ = second.Close(), first.Close()
	eventually(t, "there is room again", func() bool {
		c, err := dial()
		_ = c.Close()
		return err == nil
	})
}

func TestMetrics(t *testing.T) {
	s := run(t, fake.NewClientset(clusterIP("shop", "web", "10.0.0.7")), nil).ready(t)
	s.ask(t, dns.TypeA, "web.shop.svc.cluster.local")
	s.ask(t, dns.TypeA, "none.shop.svc.cluster.local")
	s.ask(t, dns.TypeA, "www.example.com")
	server := fmt.Sprintf("dns://:%d", s.Addrs()[0].Port())
	for _, want := range []string{
		fmt.Sprintf(`coredns_dns_requests_total{family="1",proto="udp",server="%s",type="A",view="",zone="cluster.local."} 2`, server),
		fmt.Sprintf(`coredns_dns_responses_total{plugin="kubernetes",rcode="NOERROR",server="%s",view="",zone="cluster.local."} 1`, server),
		fmt.Sprintf(`coredns_dns_responses_total{plugin="kubernetes",rcode="NXDOMAIN",server="%s",view="",zone="cluster.local."} 1`, server),
		fmt.Sprintf(`coredns_dns_responses_total{plugin="forward",rcode="SERVFAIL",server="%s",view="",zone="."} 1`, server),
		"coredns_forward_healthcheck_broken_total 1",
		"coredns_dns_request_duration_seconds_bucket", "coredns_dns_request_size_bytes_bucket", "coredns_dns_response_size_bytes_bucket",
		"coredns_panics_total 0", "coredns_cache_misses_total 1", "coredns_cache_entries 0", "coredns_forward_max_concurrent_rejects_total 0",
		"coredns_tcp_connections_rejected_total 0", "go_memstats_heap_inuse_bytes", "process_resident_memory_bytes",
	} {
		// An answer is counted after it is sent.
		eventually(t, want, func() bool { _, text := s.page(t, "/metrics"); return strings.Contains(text, want) })
	}
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]Config{
		"zone":    {Zone: "a..b", Listen: []string{"127.0.0.1:0"}},
		"root":    {Zone: ".", Listen: []string{"127.0.0.1:0"}},
		"nothing": {},
		"address": {Listen: []string{"127.0.0.1:0", "nowhere"}},
		"http":    {Listen: []string{"127.0.0.1:0"}, HTTP: "nowhere"},
	} {
		c.Client = fake.NewClientset()
		if s, err := New(t.Context(), c); err == nil {
			t.Errorf("%s: taken", name)
			_ = s.close()
		}
	}
}

func TestFeed(t *testing.T) {
	x := NewIndex()
	w := newWatcher(fake.NewClientset(), x, func(*discoveryv1.EndpointSlice) {})
	if err := w.services.Replace([]any{clusterIP("shop", "a", "10.0.0.1"), clusterIP("shop", "b", "10.0.0.2")}, ""); err != nil {
		t.Fatal(err)
	}
	if err := w.services.Replace([]any{clusterIP("shop", "b", "10.0.0.3")}, ""); err != nil {
		t.Fatal(err)
	}
	z := zone()
	z.Index = x
	for name, want := range map[string]string{"a": "NXDOMAIN", "b": "NOERROR 10.0.0.3"} {
		a, _ := z.Answer(dns.Question{Name: name + ".shop.svc.cluster.local.", Qtype: dns.TypeA}, nil)
		if got := brief(&dns.Msg{MsgHdr: dns.MsgHdr{Rcode: a.Rcode}, Answer: a.Answer}); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
	if strings.Join(w.missing(), "") == "" || w.synced() {
		t.Error("all is known")
	}
	// Nothing that answers are made of is trimmed.
	slice := crowd(2)[1].(*discoveryv1.EndpointSlice)
	slice.Endpoints[0].Hostname, slice.Endpoints[0].NodeName = new("web-0"), new("node")
	kept, err := w.slices.Transformer()(slice.DeepCopy())
	if err != nil {
		t.Fatal(err)
	}
	if got := newSlice(kept.(*discoveryv1.EndpointSlice)); len(got.endpoints) != 2 || got.endpoints[0].host != "web-0" || len(got.ports) != 1 {
		t.Errorf("%+v", got)
	}
	if e := kept.(*discoveryv1.EndpointSlice).Endpoints[0]; e.NodeName != nil {
		t.Error("what nobody looks at is kept")
	}
}
