package dns

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/miekg/dns"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// large is a cluster of n services, each with a pod.
func large(n int) *Zone {
	z := zone()
	z.Index.SetNamespace("shop")
	for i := range n {
		name := fmt.Sprintf("svc-%d", i)
		z.Index.SetService(clusterIP("shop", name, fmt.Sprintf("10.96.%d.%d", i/256, i%256)))
		slice := crowd(1)[1].(*discoveryv1.EndpointSlice)
		slice.Name, slice.Labels[discoveryv1.LabelServiceName] = name, name
		z.Index.SetSlice(slice)
	}
	for _, o := range crowd(1000) {
		put(z.Index, o)
	}
	return z
}

// BenchmarkAnswer is the part that decides, and the packing of what it says.
func BenchmarkAnswer(b *testing.B) {
	z := large(10000)
	for _, c := range []struct {
		name  string
		rtype uint16
		ask   string
	}{
		{"service", dns.TypeA, "svc-4711.shop.svc.cluster.local."},
		{"srv", dns.TypeSRV, "_http._tcp.svc-4711.shop.svc.cluster.local."},
		{"none", dns.TypeA, "www.example.com.shop.svc.cluster.local."},
		{"ptr", dns.TypePTR, "1.0.96.10.in-addr.arpa."},
		{"endpoint", dns.TypeA, "10-1-0-1.crowd.shop.svc.cluster.local."},
		{"crowd", dns.TypeA, "crowd.shop.svc.cluster.local."},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			q := dns.Question{Name: c.ask, Qtype: c.rtype, Qclass: dns.ClassINET}
			for b.Loop() {
				a, _ := z.Answer(q, rand.IntN)
				m := dns.Msg{Question: []dns.Question{q}, Answer: a.Answer, Ns: a.Authority, Extra: a.Extra}
				m.Truncate(packetSize)
				if _, err := m.Pack(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkIndex is the memory that a service with a pod takes.
func BenchmarkIndex(b *testing.B) {
	const n = 10000
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		z := large(n)
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(z)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/service")
	}
}

// TestShuffle holds that each address comes first as often as the others.
func TestShuffle(t *testing.T) {
	z := zone()
	for _, o := range crowd(4) {
		put(z.Index, o)
	}
	first := map[string]int{}
	dice := rand.New(rand.NewPCG(1, 2))
	for range 4000 {
		a, _ := z.Answer(dns.Question{Name: "crowd.shop.svc.cluster.local.", Qtype: dns.TypeA}, dice.IntN)
		first[a.Answer[0].(*dns.A).A.String()]++
	}
	for addr, n := range first {
		if len(first) != 4 || n < 900 || n > 1100 {
			t.Errorf("%s comes first %d times of 4000", addr, n)
		}
	}
	// What is many is each there once, too.
	many := crowd(40)
	put(z.Index, many[1])
	twice := many[1].(*discoveryv1.EndpointSlice).DeepCopy()
	twice.Name = "crowd-2"
	put(z.Index, twice)
	a, _ := z.Answer(dns.Question{Name: "crowd.shop.svc.cluster.local.", Qtype: dns.TypeA}, nil)
	if len(a.Answer) != 40 {
		t.Errorf("%d answers", len(a.Answer))
	}
}
