package lb_test

import (
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/proxy/lb"
)

// counting counts the calls that write.
type counting struct {
	lb.Maps

	calls int
}

func (c *counting) PutService(id lb.ID, s lb.Service) error {
	c.calls++
	return c.Maps.PutService(id, s)
}

func (c *counting) PutFrontend(f lb.Frontend, e lb.Entry) error {
	c.calls++
	return c.Maps.PutFrontend(f, e)
}

// service is number i, of n endpoints.
func service(i, n int) (*corev1.Service, *discoveryv1.EndpointSlice) {
	name := fmt.Sprintf("s%d", i)
	ip := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String()
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}}
	svc.Spec.ClusterIP, svc.Spec.ClusterIPs = ip, []string{ip}
	svc.Spec.Ports = []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}
	slice := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4}
	slice.Ports = []discoveryv1.EndpointPort{{Name: new(""), Port: new(int32(8080)), Protocol: new(corev1.ProtocolTCP)}}
	for j := range n {
		addr := netip.AddrFrom4([4]byte{10, byte(100 + j>>8), byte(i), byte(j)})
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{addr.String()}})
	}
	return svc, slice
}

func fill(tb testing.TB, state *lb.State, services, endpoints int) {
	for i := range services {
		set(tb, state, i, endpoints)
	}
}

func set(tb testing.TB, state *lb.State, i, endpoints int) {
	svc, slice := service(i, endpoints)
	plan := lb.Services(svc, []*discoveryv1.EndpointSlice{slice}, lb.Node{Name: "here"})
	if err := state.Set(lb.Owner{Kind: "service", Name: svc.Name}, plan); err != nil {
		tb.Fatal(err)
	}
}

// TestOneChange: of many services one is written where one has changed.
func TestOneChange(t *testing.T) {
	maps := &counting{Maps: lb.NewMemory()}
	state := lb.NewState(lb.NewTable())
	fill(t, state, 1000, 3)
	if _, err := state.Sync(maps); err != nil {
		t.Fatal(err)
	}
	if want := 2000; maps.calls != want {
		t.Fatalf("%d calls for 1000 services, want %d", maps.calls, want)
	}
	set(t, state, 500, 4)
	if n := len(state.Changes()); n != 1 {
		t.Errorf("%d changes, want 1", n)
	}
	maps.calls = 0
	if _, err := state.Sync(maps); err != nil || maps.calls != 1 {
		t.Errorf("%d calls and %v for one change, want 1", maps.calls, err)
	}
}

func TestTooManyServices(t *testing.T) {
	state := lb.NewState(lb.NewTable())
	var failed error
	for i := range lb.MaxServices {
		c := lb.Claim{Name: "c", Frontends: map[lb.Frontend]lb.Flags{{Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(i))}: 0}}
		if err := state.Set(lb.Owner{Name: fmt.Sprint(i)}, lb.Plan{Claims: []lb.Claim{c}}); err != nil {
			failed = err
		}
	}
	if n := len(state.Want().Services); failed == nil || n != lb.MaxServices-1 {
		t.Errorf("%d services and error %v", n, failed)
	}
}

// TestLost: only what takes a UDP backend away leaves clients behind.
func TestLost(t *testing.T) {
	at := netip.MustParseAddrPort("10.0.0.1:53")
	one, two := lb.Backend{Addr: netip.MustParseAddrPort("10.1.0.1:53")}, lb.Backend{Addr: netip.MustParseAddrPort("10.1.0.2:53")}
	for _, c := range []struct {
		name          string
		proto         lb.Proto
		before, after []lb.Backend
		lost          bool
	}{
		{"added", lb.UDP, []lb.Backend{one}, []lb.Backend{one, two}, false},
		{"removed", lb.UDP, []lb.Backend{one, two}, []lb.Backend{two}, true},
		{"all removed", lb.UDP, []lb.Backend{one}, nil, true},
		{"tcp", lb.TCP, []lb.Backend{one, two}, []lb.Backend{two}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			state, maps := lb.NewState(lb.NewTable()), lb.NewMemory()
			for i, backends := range [][]lb.Backend{c.before, c.after} {
				plan := lb.Plan{}
				if backends != nil {
					plan.Claims = []lb.Claim{{
						Name: "c", Proto: c.proto, Frontends: map[lb.Frontend]lb.Flags{{Addr: at, Proto: c.proto}: 0},
						Service: lb.Service{Backends: backends, Cluster: len(backends)},
					}}
				}
				if err := state.Set(lb.Owner{Name: "o"}, plan); err != nil {
					t.Fatal(err)
				}
				lost, err := state.Sync(maps)
				if want := i == 1 && c.lost; lost != want || err != nil {
					t.Errorf("step %d: lost %v, %v; want %v", i, lost, err, want)
				}
			}
		})
	}
}

func BenchmarkCold(b *testing.B) {
	for b.Loop() {
		state := lb.NewState(lb.NewTable())
		fill(b, state, 10000, 10)
		if _, err := state.Sync(lb.NewMemory()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOneChange is one changed EndpointSlice among 10,000 services of
// ten endpoints.
func BenchmarkOneChange(b *testing.B) {
	maps, state := lb.NewMemory(), lb.NewState(lb.NewTable())
	fill(b, state, 10000, 10)
	if _, err := state.Sync(maps); err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		set(b, state, 5000, 10+i%2)
		if _, err := state.Sync(maps); err != nil {
			b.Fatal(err)
		}
	}
}
