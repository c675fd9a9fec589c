//go:build integration

package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/knarr-dev/knarr/proxy/lb"
	"github.com/knarr-dev/knarr/proxy/proxytest"
)

// bench is a node with a pod's worth of servers on it and a table to fill.
type bench struct {
	*Datapath

	tb    testing.TB
	node  *proxytest.Netns
	state *lb.State
}

// newBench attaches an empty datapath to a cgroup that the test is in. Its
// servers a to d are on 10.1.0.1 to 10.1.0.4 and the same in fd01::.
func newBench(tb testing.TB) *bench {
	tb.Helper()
	b := &bench{tb: tb, node: proxytest.NewNetns(tb), state: lb.NewState(lb.NewTable())}
	cfg := Config{Dir: proxytest.PinDir(tb), Cgroup: proxytest.Cgroup(tb)}
	b.node.Do(func() {
		b.Datapath = open(tb, cfg)
		if err := b.Attach(); err != nil {
			tb.Fatal(err)
		}
	})
	tb.Cleanup(func() {
		if err := Remove(cfg.Dir); err != nil {
			tb.Error(err)
		}
	})
	for i, name := range []string{"a", "b", "c", "d"} {
		v4 := netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 1)})
		v6 := netip.AddrFrom16([16]byte{0: 0xfd, 1: 1, 15: byte(i + 1)})
		b.node.Link("lo", v4.String()+"/32", v6.String()+"/128")
		b.node.Serve(name, netip.AddrPortFrom(v4, 8080))
		b.node.Serve(name, netip.AddrPortFrom(v6, 8080))
	}
	return b
}

// service puts a service in the table, or takes it out where it has no
// frontends. Names are those of the servers.
func (b *bench) service(name string, p lb.Proto, s lb.Service, servers string, fronts ...string) {
	b.tb.Helper()
	c := lb.Claim{Name: "c", Proto: p, Frontends: map[lb.Frontend]lb.Flags{}, Service: s}
	v4 := true
	for _, f := range fronts {
		at := netip.MustParseAddrPort(f)
		v4 = at.Addr().Is4()
		c.Frontends[lb.Frontend{Addr: at, Proto: p}] = 0
	}
	for _, r := range servers {
		addr := netip.AddrFrom4([4]byte{10, 1, 0, byte(r - 'a' + 1)})
		if !v4 {
			addr = netip.AddrFrom16([16]byte{0: 0xfd, 1: 1, 15: byte(r - 'a' + 1)})
		}
		c.Service.Backends = append(c.Service.Backends, lb.Backend{Addr: netip.AddrPortFrom(addr, 8080)})
	}
	if s.Local == 0 {
		c.Service.Cluster = len(servers)
	}
	plan := lb.Plan{Claims: []lb.Claim{c}}
	if len(fronts) == 0 {
		plan.Claims = nil
	}
	if err := b.state.Set(lb.Owner{Name: name}, plan); err != nil {
		b.tb.Fatal(err)
	}
	if _, err := b.state.Sync(b); err != nil {
		b.tb.Fatal(err)
	}
}

// TestDial: each kind of socket reaches every backend of the address it
// dials, about evenly, and is told that its peer is what it dialled.
func TestDial(t *testing.T) {
	b := newBench(t)
	b.service("tcp", lb.TCP, lb.Service{}, "abc", "10.0.0.1:80")
	b.service("udp", lb.UDP, lb.Service{}, "abc", "10.0.0.1:80")
	b.service("tcp6", lb.TCP, lb.Service{}, "abc", "[fd00::1]:80")
	b.service("udp6", lb.UDP, lb.Service{}, "abc", "[fd00::1]:80")
	for _, c := range []struct{ network, addr string }{
		{"tcp4", "10.0.0.1:80"},
		{"udp4", "10.0.0.1:80"},
		{"tcp6", "[fd00::1]:80"},
		{"udp6", "[fd00::1]:80"},
	} {
		t.Run("connect "+c.network, func(t *testing.T) {
			by, err := b.node.Count(c.network, c.addr, 600)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"a", "b", "c"} {
				if by[name] < 140 || by[name] > 260 { // more than 5 deviations from 200
					t.Errorf("%s answered %d times of 600", name, by[name])
				}
			}
		})
	}
	for _, c := range []struct {
		name          string
		family, proto int
		addr          string
	}{
		{"tcp4", syscall.AF_INET, syscall.SOCK_STREAM, "10.0.0.1:80"},
		{"tcp4 by an IPv6 socket", syscall.AF_INET6, syscall.SOCK_STREAM, "[::ffff:10.0.0.1]:80"},
		{"tcp6", syscall.AF_INET6, syscall.SOCK_STREAM, "[fd00::1]:80"},
		{"udp4", syscall.AF_INET, syscall.SOCK_DGRAM, "10.0.0.1:80"},
		{"udp4 by an IPv6 socket", syscall.AF_INET6, syscall.SOCK_DGRAM, "[::ffff:10.0.0.1]:80"},
		{"udp6", syscall.AF_INET6, syscall.SOCK_DGRAM, "[fd00::1]:80"},
	} {
		t.Run("getpeername "+c.name, func(t *testing.T) {
			b.node.Do(func() {
				s := socket(t, c.family, c.proto)
				if err := syscall.Connect(s, sockaddr(c.addr)); err != nil {
					t.Fatal(err)
				}
				peer, err := syscall.Getpeername(s)
				if got := text(peer); err != nil || got != c.addr {
					t.Errorf("peer is %v, %v", got, err)
				}
			})
		})
		if c.proto == syscall.SOCK_STREAM {
			continue
		}
		t.Run("sendmsg "+c.name, func(t *testing.T) {
			b.node.Do(func() {
				s := socket(t, c.family, c.proto)
				first := ""
				for range 5 {
					if err := syscall.Sendto(s, []byte("?"), 0, sockaddr(c.addr)); err != nil {
						t.Fatal(err)
					}
					buf := make([]byte, 100)
					n, from, err := syscall.Recvfrom(s, buf, 0)
					if err != nil || text(from) != c.addr {
						t.Fatalf("answer from %v, %v", text(from), err)
					}
					if name := string(buf[:1]); first == "" {
						first = name
					} else if name != first {
						t.Errorf("%q after %q on one socket", buf[:n], first)
					}
				}
			})
		})
	}
}

func socket(t *testing.T, family, kind int) int {
	s, err := syscall.Socket(family, kind, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Close(s); err != nil {
			t.Error(err)
		}
	})
	timeout := syscall.Timeval{Sec: 1}
	if err := syscall.SetsockoptTimeval(s, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &timeout); err != nil {
		t.Fatal(err)
	}
	return s
}

func sockaddr(text string) syscall.Sockaddr {
	at := netip.MustParseAddrPort(text)
	if at.Addr().Is4() {
		return &syscall.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}
	}
	return &syscall.SockaddrInet6{Addr: at.Addr().As16(), Port: int(at.Port())}
}

func text(a syscall.Sockaddr) string {
	switch a := a.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)).String()
	}
	return fmt.Sprint(a)
}

// TestRefused: nobody there is known at once, whatever the socket.
func TestRefused(t *testing.T) {
	b := newBench(t)
	b.service("tcp", lb.TCP, lb.Service{}, "", "10.0.0.1:80")
	b.service("udp", lb.UDP, lb.Service{}, "", "10.0.0.1:80")
	b.service("tcp6", lb.TCP, lb.Service{}, "", "[fd00::1]:80")
	for _, c := range []struct{ network, addr string }{{"tcp4", "10.0.0.1:80"}, {"udp4", "10.0.0.1:80"}, {"tcp6", "[fd00::1]:80"}} {
		if a, err := b.node.Ask(c.network, c.addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v, %v; want a refusal", c.network, a, err)
		}
	}
	b.node.Do(func() {
		s := socket(t, syscall.AF_INET, syscall.SOCK_DGRAM)
		if err := syscall.Sendto(s, []byte("?"), 0, sockaddr("10.0.0.1:80")); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("sendmsg: %v", err)
		}
	})
	b.service("tcp", lb.TCP, lb.Service{}, "a", "10.0.0.1:80")
	if a, err := b.node.Ask("tcp4", "10.0.0.1:80"); err != nil || a.Name != "a" {
		t.Errorf("with a backend: %v, %v", a, err)
	}
}

// TestRemoved: a backend that went is not dialled from then on, and while
// backends come and go there is never a moment without one.
func TestRemoved(t *testing.T) {
	b := newBench(t)
	b.service("s", lb.TCP, lb.Service{}, "ab", "10.0.0.1:80")
	stop, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		var n int
		for {
			select {
			case <-stop:
				failed <- nil
				return
			default:
			}
			if _, err := b.node.Ask("tcp4", "10.0.0.1:80"); err != nil {
				failed <- fmt.Errorf("dial %d: %w", n, err)
				return
			}
			n++
		}
	}()
	for i := range 3000 {
		b.service("s", lb.TCP, lb.Service{}, []string{"ab", "c", "bcd", "d"}[i%4], "10.0.0.1:80")
	}
	close(stop)
	if err := <-failed; err != nil {
		t.Error(err)
	}
	b.service("s", lb.TCP, lb.Service{}, "b", "10.0.0.1:80")
	if by, err := b.node.Count("tcp4", "10.0.0.1:80", 50); err != nil || by["b"] != 50 {
		t.Errorf("answers by %v, %v", by, err)
	}
}

// TestAffinity: a client, which is a network namespace here, stays with its
// backend on every frontend, until that goes or the service forgets it.
func TestAffinity(t *testing.T) {
	b := newBench(t)
	sticky := lb.Service{Affinity: 1}
	fronts := []string{"10.0.0.1:80", "198.51.100.1:80"}
	b.service("s", lb.TCP, sticky, "abcd", fronts...)
	one := func() string {
		t.Helper()
		seen := map[string]bool{}
		last := ""
		for i := range 20 {
			a, err := b.node.Ask("tcp4", fronts[i%2])
			if err != nil {
				t.Fatal(err)
			}
			seen[a.Name], last = true, a.Name
		}
		if len(seen) != 1 {
			t.Fatalf("answers by %v, want one of them", seen)
		}
		return last
	}
	first := one()
	others := ""
	for _, r := range "abcd" {
		if string(r) != first {
			others += string(r)
		}
	}
	b.service("s", lb.TCP, sticky, others, fronts...)
	second := one()
	b.service("s", lb.TCP, sticky, "abcd", fronts...)
	if got := one(); got != second {
		t.Errorf("%s after more backends came, before %s", got, second)
	}
	b.service("s", lb.TCP, lb.Service{}, "abcd", fronts...)
	if by, err := b.node.Count("tcp4", fronts[0], 100); err != nil || len(by) != 4 {
		t.Errorf("without affinity: %v, %v", by, err)
	}
	b.service("s", lb.TCP, sticky, "abcd", fronts...)
	one()
	// And each client has its own: with 12 namespaces, all on one backend of
	// four would be a chance of one in four million.
	by := map[string]int{}
	for range 12 {
		n := proxytest.NewNetns(t)
		b.node.Connect("x", n, "eth0")
		b.node.Link("x", "172.16.0.1/24")
		n.Link("eth0", "172.16.0.2/24")
		n.Route("0.0.0.0/0", "172.16.0.1")
		a, err := n.Ask("tcp4", fronts[0])
		if err != nil {
			t.Fatal(err)
		}
		by[a.Name]++
		b.node.Run("ip", "link", "del", "x")
	}
	if len(by) == 1 {
		t.Errorf("12 clients all went to %v", by)
	}
}

// TestAffinityEnds: a client is forgotten some time after its last connection.
func TestAffinityEnds(t *testing.T) {
	b := newBench(t)
	b.service("s", lb.TCP, lb.Service{Affinity: 1}, "abcd", "10.0.0.1:80")
	first, err := b.node.Ask("tcp4", "10.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	err = proxytest.Eventually(func() error {
		<-time.After(1100 * time.Millisecond)
		if a, err := b.node.Ask("tcp4", "10.0.0.1:80"); err != nil || a.Name == first.Name {
			return fmt.Errorf("%v, %w", a, err)
		}
		return nil
	})
	if err != nil {
		t.Errorf("always the same after more than a second: %v", err)
	}
}

// TestAddresses: the node's addresses stand for one another, loopback only
// for the node itself, and node ports are open where they should be.
func TestAddresses(t *testing.T) {
	b := newBench(t)
	pod := proxytest.NewNetns(t)
	b.node.Connect("x", pod, "eth0")
	b.node.Link("x", "172.16.0.1/24")
	pod.Link("eth0", "172.16.0.2/24")
	pod.Route("0.0.0.0/0", "172.16.0.1")
	open := map[netip.Addr]bool{
		netip.MustParseAddr("127.0.0.1"): true, netip.MustParseAddr("172.16.0.1"): true, netip.MustParseAddr("10.1.0.1"): false,
	}
	if err := b.SetAddresses(open); err != nil {
		t.Fatal(err)
	}
	node, host := lb.Frontend{Addr: netip.MustParseAddrPort("0.0.0.0:30080"), Proto: lb.TCP}, lb.Frontend{Addr: netip.MustParseAddrPort("0.0.0.0:8000"), Proto: lb.TCP}
	special := lb.Frontend{Addr: netip.MustParseAddrPort("127.0.0.1:9000"), Proto: lb.TCP}
	plan := lb.Plan{Claims: []lb.Claim{{
		Name: "c", Proto: lb.TCP, Frontends: map[lb.Frontend]lb.Flags{node: lb.NodePort, host: 0, special: 0},
		Service: lb.Service{Backends: []lb.Backend{{Addr: netip.MustParseAddrPort("10.1.0.2:8080")}}, Cluster: 1},
	}}}
	if err := b.state.Set(lb.Owner{Name: "s"}, plan); err != nil {
		t.Fatal(err)
	}
	if _, err := b.state.Sync(b); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from *proxytest.Netns
		addr string
		ok   bool
	}{
		{b.node, "127.0.0.1:30080", true},
		{b.node, "172.16.0.1:30080", true},
		{b.node, "10.1.0.1:30080", false}, // not open for node ports
		{b.node, "10.1.0.1:8000", true},
		{b.node, "10.1.0.3:8000", false}, // an address, but not known as the node's
		{b.node, "127.0.0.1:9000", true},
		{pod, "172.16.0.1:30080", true},
		{pod, "127.0.0.1:30080", false}, // its own loopback
		{pod, "127.0.0.1:9000", false},
	} {
		if a, err := c.from.Ask("tcp4", c.addr); (err == nil) != c.ok {
			t.Errorf("%s: %v, %v", c.addr, a, err)
		}
	}
	delete(open, netip.MustParseAddr("172.16.0.1"))
	if err := b.SetAddresses(open); err != nil {
		t.Fatal(err)
	}
	if a, err := b.node.Ask("tcp4", "172.16.0.1:30080"); err == nil {
		t.Errorf("an address that went: %v", a)
	}
}

// TestRestart: what is attached works without a process of ours, a second
// one takes it over as it is, and Remove takes all away.
func TestRestart(t *testing.T) {
	b := newBench(t)
	b.service("s", lb.TCP, lb.Service{Affinity: 100}, "abcd", "10.0.0.1:80")
	first, err := b.node.Ask("tcp4", "10.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	ask := func(when string) {
		t.Helper()
		if a, err := b.node.Ask("tcp4", "10.0.0.1:80"); err != nil || a.Name != first.Name {
			t.Errorf("%s: %v, %v; want %s", when, a, err, first.Name)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	ask("while nobody runs")
	before, err := b.Attached()
	if err != nil {
		t.Fatal(err)
	}
	b.node.Do(func() {
		next := open(t, b.cfg)
		have, err := next.Dump()
		if err != nil || len(have.Services) != 1 || len(have.Frontends) != 1 {
			t.Errorf("took over %v, %v", have, err)
		}
		ask("before attaching")
		if err := next.Attach(); err != nil {
			t.Fatal(err)
		}
		ask("after attaching")
		if after, err := next.Attached(); err != nil || fmt.Sprint(after) != fmt.Sprint(before) || len(after) != len(hooks) {
			t.Errorf("attached %v, then %v, %v", before, after, err)
		}
	})
	if err := Remove(b.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	if a, err := b.node.Ask("tcp4", "10.0.0.1:80"); err == nil {
		t.Errorf("after Remove: %v", a)
	}
	if err := Remove(b.cfg.Dir); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

// TestOtherLayout: maps of another version are left until the new programs
// are in place, and what they know of connections is kept.
func TestOtherLayout(t *testing.T) {
	b := newBench(t)
	b.service("s", lb.UDP, lb.Service{Affinity: 100}, "abcd", "10.0.0.1:80")
	var old net.Conn
	b.node.Do(func() {
		var err error
		if old, err = net.Dial("udp4", "10.0.0.1:80"); err != nil {
			t.Fatal(err)
		}
	})
	defer func() { _ = old.Close() }() // it was only asked
	first, err := b.node.Ask("udp4", "10.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	// As if these maps were those of an older binary.
	at := b.cfg.Dir + "/"
	if err := errors.Join(b.Close(), syscall.Rename(at+b.version, at+versionDir+"other")); err != nil {
		t.Fatal(err)
	}
	b.node.Do(func() { b.Datapath = open(t, b.cfg) })
	if have, err := b.Dump(); err != nil || len(have.Services) != 0 {
		t.Fatalf("began with %v, %v", have, err)
	}
	if a, err := b.node.Ask("udp4", "10.0.0.1:80"); err != nil {
		t.Errorf("while the old programs run: %v, %v", a, err)
	}
	b.state = lb.NewState(lb.NewTable())
	b.service("s", lb.UDP, lb.Service{Affinity: 100}, "abcd", "10.0.0.1:80")
	b.node.Do(func() {
		if err := b.Attach(); err != nil {
			t.Fatal(err)
		}
	})
	if a, err := b.node.Ask("udp4", "10.0.0.1:80"); err != nil || a.Name != first.Name {
		t.Errorf("under the new programs: %v, %v; want %s", a, err, first.Name)
	}
	if a, err := proxytest.Talk(old); err != nil || a.Name != first.Name {
		t.Errorf("on a socket of before: %v, %v", a, err)
	}
	b.node.Do(func() {
		raw, err := old.(*net.UDPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) {
			if peer, err := syscall.Getpeername(int(fd)); err != nil || text(peer) != "10.0.0.1:80" {
				t.Errorf("its peer is %v, %v", text(peer), err)
			}
		}); err != nil {
			t.Error(err)
		}
	})
	var fs syscall.Stat_t
	if err := syscall.Stat(at+versionDir+"other", &fs); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("the other layout is still there: %v", err)
	}
}
