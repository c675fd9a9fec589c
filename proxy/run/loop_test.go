package run

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/knarr-dev/knarr/proxy/datapath"
	"github.com/knarr-dev/knarr/proxy/lb"
	"github.com/knarr-dev/knarr/proxy/network"
)

// paper is all means of a loop without a kernel.
type paper struct {
	mu         sync.Mutex
	maps       *lb.Memory
	fail       error // of every put
	puts       int   // tried
	attached   int
	before     string // what the maps held when the programs were attached
	interfaces []datapath.Interface
	addresses  map[netip.Addr]bool
	node       network.Node
	others     []network.Node
	ifaces     []iface
	connected  []datapath.Socket
	asked      int // how often for them
	aborted    []datapath.Socket
	failAbort  error
	news       chan struct{}
}

func newPaper() *paper {
	return &paper{
		maps: lb.NewMemory(), news: make(chan struct{}, 1),
		ifaces: []iface{{index: 2, name: "eth0", up: true, ethernet: true, addrs: addrs("192.0.2.1")}},
	}
}

func (p *paper) Dump() (lb.Table, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.maps.Dump()
}

func (p *paper) put(do func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.puts++; p.fail != nil {
		return p.fail
	}
	return do()
}

func (p *paper) PutService(id lb.ID, s lb.Service) error {
	return p.put(func() error { return p.maps.PutService(id, s) })
}

func (p *paper) DeleteService(id lb.ID) error {
	return p.put(func() error { return p.maps.DeleteService(id) })
}

func (p *paper) PutFrontend(f lb.Frontend, e lb.Entry) error {
	return p.put(func() error { return p.maps.PutFrontend(f, e) })
}

func (p *paper) DeleteFrontend(f lb.Frontend) error {
	return p.put(func() error { return p.maps.DeleteFrontend(f) })
}

func (p *paper) Attach() error {
	p.before = p.text()
	p.attached++
	return nil
}

func (p *paper) SetInterfaces(ifs []datapath.Interface) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.interfaces = ifs
	return nil
}

func (p *paper) SetAddresses(addrs map[netip.Addr]bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addresses = maps.Clone(addrs)
	return nil
}

func (p *paper) Set(node network.Node, others []network.Node) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.node, p.others = node, others
	return nil
}

func (p *paper) look() ([]iface, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ifaces, nil
}

func (p *paper) changed() <-chan struct{} { return p.news }

func (p *paper) Connected() ([]datapath.Socket, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	return slices.Clone(p.connected), nil
}

func (p *paper) Forget(s datapath.Socket) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.connected = slices.DeleteFunc(p.connected, func(c datapath.Socket) bool { return c == s })
	return nil
}

func (p *paper) abort(_ context.Context, sockets []datapath.Socket) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failAbort != nil {
		return p.failAbort
	}
	p.aborted = append(p.aborted, sockets...)
	return nil
}

// text is what the maps hold.
func (p *paper) text() string {
	t, err := p.Dump()
	if err != nil {
		return err.Error()
	}
	return t.String()
}

// world runs a loop in a bubble of fake time.
type world struct {
	t      *testing.T
	paper  *paper
	client *fake.Clientset
	loop   *loop
}

// inBubble starts a loop for the node n1 with these objects, and calls f once
// it has nothing to do. Before is told the client before anybody uses it.
func inBubble(t *testing.T, before, f func(*world), objs ...runtime.Object) {
	// They log, but wait until long after the last time they did, which was
	// in another time.
	handlers := utilruntime.ErrorHandlers
	utilruntime.ErrorHandlers = nil
	defer func() { utilruntime.ErrorHandlers = handlers }()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w := &world{t: t, paper: newPaper(), client: fake.NewClientset(objs...)}
		if before != nil {
			before(w)
		}
		factory := informers.NewSharedInformerFactory(w.client, 0)
		var err error
		cfg := Config{Node: "n1", Informers: factory, Network: network.Config{Bridge: "pods0"}}
		if w.loop, err = newLoop(ctx, cfg, means{w.paper, w.paper, w.paper}); err != nil {
			t.Fatal(err)
		}
		factory.Start(ctx.Done())
		ended := make(chan error)
		go func() { ended <- w.loop.run(ctx) }()
		w.settle()
		f(w)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		w.loop.close(ctx)
		factory.Shutdown()
	})
}

// settle waits until the loop has done what there is to do.
func (w *world) settle() {
	time.Sleep(3 * window) // fake
	synctest.Wait()
}

func (w *world) is(want string) {
	w.t.Helper()
	if diff := cmp.Diff(strings.TrimLeft(want, "\n"), w.paper.text()); diff != "" {
		w.t.Errorf("-want +got:\n%s", diff)
	}
}

func (w *world) must(_ any, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	w.settle()
}

func addrs(texts ...string) (out []netip.Addr) {
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

func node(name, addr, pods string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.NodeSpec{PodCIDRs: []string{pods}},
		Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: addr}}},
	}
}

func service(name, ip string) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	s.Spec.ClusterIP, s.Spec.ClusterIPs = ip, []string{ip}
	s.Spec.Ports = []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}
	return s
}

func endpoints(service string, addrs ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: service + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: service},
	}}
	s.AddressType = discoveryv1.AddressTypeIPv4
	s.Ports = []discoveryv1.EndpointPort{{Name: new(""), Port: new(int32(8080)), Protocol: new(corev1.ProtocolTCP)}}
	for _, a := range addrs {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	return s
}

func pod(name, node, ip string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	p.Spec.NodeName = node
	p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8000, Protocol: corev1.ProtocolTCP}}}}
	if ip != "" {
		p.Status.PodIPs = []corev1.PodIP{{IP: ip}}
	}
	return p
}

const filled = `
tcp 10.96.0.1:80
  10.1.0.1:8080
`

// TestFollow: the maps hold what the API server has, from the first fill on
// through every change, and programs are attached only to filled maps.
func TestFollow(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		ctx := t.Context()
		services, slices := w.client.CoreV1().Services("default"), w.client.DiscoveryV1().EndpointSlices("default")
		w.is(filled)
		if w.paper.attached != 1 || w.paper.before != strings.TrimLeft(filled, "\n") {
			t.Errorf("attached %d times, to %q", w.paper.attached, w.paper.before)
		}
		w.must(slices.Update(ctx, endpoints("s", "10.1.0.1", "10.1.0.2"), metav1.UpdateOptions{}))
		w.is(filled + "  10.1.0.2:8080\n")
		w.must(services.Create(ctx, service("t", "10.96.0.2"), metav1.CreateOptions{}))
		w.is(filled + "  10.1.0.2:8080\ntcp 10.96.0.2:80\n")
		w.must(nil, slices.Delete(ctx, "s-1", metav1.DeleteOptions{}))
		w.is("tcp 10.96.0.1:80\ntcp 10.96.0.2:80\n")
		w.must(nil, services.Delete(ctx, "s", metav1.DeleteOptions{}))
		w.is("tcp 10.96.0.2:80\n")
		other := endpoints("s", "10.1.0.3")
		other.Labels[discoveryv1.LabelServiceName] = "t"
		w.must(slices.Create(ctx, other, metav1.CreateOptions{}))
		w.is("tcp 10.96.0.2:80\n  10.1.0.3:8080\n")
		if w.paper.attached != 1 {
			t.Errorf("attached %d times", w.paper.attached)
		}
	}, node("n1", "192.0.2.1", "10.244.1.0/24"), service("s", "10.96.0.1"), endpoints("s", "10.1.0.1"))
}

// TestHostPorts: those of the node's pods are served as long as the pod is.
func TestHostPorts(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		ctx, pods := t.Context(), w.client.CoreV1().Pods("default")
		w.is("")
		w.must(pods.Update(ctx, pod("p", "n1", "10.244.1.2"), metav1.UpdateOptions{}))
		w.is("tcp 0.0.0.0:8000\n  10.244.1.2:80 here\n")
		ended := pod("p", "n1", "10.244.1.2")
		ended.Status.Phase = corev1.PodSucceeded
		w.must(pods.Update(ctx, ended, metav1.UpdateOptions{}))
		w.is("")
		w.must(pods.Create(ctx, pod("q", "n1", "10.244.1.3"), metav1.CreateOptions{}))
		w.is("tcp 0.0.0.0:8000\n  10.244.1.3:80 here\n")
		w.must(nil, pods.Delete(ctx, "q", metav1.DeleteOptions{}))
		w.is("")
	}, pod("p", "n1", ""), pod("elsewhere", "n2", "10.244.2.2"))
}

// earlier has the maps hold what an earlier proxy left: the service s and one
// that is no more.
func earlier(w *world) {
	state := lb.NewState(lb.NewTable())
	for name, ip := range map[string]string{"s": "10.96.0.1", "gone": "10.96.0.9"} {
		plan := lb.Services(service(name, ip), []*discoveryv1.EndpointSlice{endpoints(name, "10.1.0.1")}, lb.Node{Name: "n1"})
		if err := state.Set(lb.Owner{Kind: kindService, Namespace: "default", Name: name}, plan); err != nil {
			w.t.Fatal(err)
		}
	}
	if _, err := state.Sync(w.paper.maps); err != nil {
		w.t.Fatal(err)
	}
}

// TestStart: what an earlier proxy left is neither taken away nor written
// anew before everything is known, and then what is no more goes.
func TestStart(t *testing.T) {
	var up atomic.Bool
	before := func(w *world) {
		earlier(w)
		w.client.PrependReactor("list", "endpointslices", func(clienttesting.Action) (bool, runtime.Object, error) {
			return !up.Load(), nil, errors.New("not now")
		})
	}
	inBubble(t, before, func(w *world) {
		if w.paper.puts > 0 || w.paper.attached > 0 {
			t.Errorf("%d changes and %d times attached before all is known", w.paper.puts, w.paper.attached)
		}
		if w.paper.node.Name != "n1" {
			t.Error("the pods' network waits for services")
		}
		if r := w.loop.health.report(time.Now()); r.ready() || !r.live {
			t.Errorf("health while not all is known: %+v", r)
		}
		up.Store(true)
		time.Sleep(time.Minute) // fake: informers take their time after an error
		w.settle()
		w.is(filled)
		if w.paper.puts != 2 {
			t.Errorf("%d changes, want only those that take a service away", w.paper.puts)
		}
		if !w.loop.health.report(time.Now()).ready() {
			t.Error("not ready")
		}
	}, node("n1", "192.0.2.1", "10.244.1.0/24"), service("s", "10.96.0.1"), endpoints("s", "10.1.0.1"))
}

// TestNoPods: services are served where pods may not be seen.
func TestNoPods(t *testing.T) {
	before := func(w *world) {
		w.client.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, errors.New("not yours to see")
		})
	}
	inBubble(t, before, func(w *world) {
		w.is("")
		time.Sleep(podPatience) // fake
		w.settle()
		w.is(filled)
	}, service("s", "10.96.0.1"), endpoints("s", "10.1.0.1"))
}

// TestRetry: what fails is tried again, less and less often, and the proxy is
// ill only when that goes on.
func TestRetry(t *testing.T) {
	before := func(w *world) { w.paper.fail = errors.New("no room") }
	inBubble(t, before, func(w *world) {
		w.is("")
		if w.paper.attached != 1 {
			t.Errorf("attached %d times: other services would do without", w.paper.attached)
		}
		time.Sleep(patience / 2) // fake
		if r := w.loop.health.report(time.Now()); r.ready() || !r.live {
			t.Errorf("health after half a minute %+v", r)
		}
		w.paper.mu.Lock()
		tries := w.paper.puts
		w.paper.mu.Unlock()
		if most := int(patience/2/lastWait) + 8; tries < 6 || tries > most {
			t.Errorf("%d tries, want 6 to %d", tries, most)
		}
		time.Sleep(patience) // fake
		if r := w.loop.health.report(time.Now()); r.live {
			t.Errorf("health after a minute and a half %+v", r)
		}
		w.paper.mu.Lock()
		w.paper.fail = nil
		w.paper.mu.Unlock()
		time.Sleep(lastWait) // fake
		w.settle()
		w.is(filled)
		if r := w.loop.health.report(time.Now()); !r.ready() {
			t.Errorf("health in the end %+v", r)
		}
	}, service("s", "10.96.0.1"), endpoints("s", "10.1.0.1"))
}

// TestNode: services are planned anew when the node's zone changes, but not
// for what the kubelet reports every few seconds.
func TestNode(t *testing.T) {
	slice := endpoints("s", "10.1.0.1", "10.1.0.2")
	for i, zone := range []string{"east", "west"} {
		slice.Endpoints[i].Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: zone}}}
	}
	inBubble(t, nil, func(w *world) {
		w.is(filled + "  10.1.0.2:8080\n")
		n := node("n1", "192.0.2.1", "10.244.1.0/24")
		n.Labels = map[string]string{corev1.LabelTopologyZone: "west"}
		w.must(w.client.CoreV1().Nodes().Update(t.Context(), n, metav1.UpdateOptions{}))
		w.is("tcp 10.96.0.1:80\n  10.1.0.2:8080\n")
		before := w.loop.health.report(time.Now()).Updated
		n = n.DeepCopy()
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, LastHeartbeatTime: metav1.Now()}}
		w.must(w.client.CoreV1().Nodes().UpdateStatus(t.Context(), n, metav1.UpdateOptions{}))
		if !w.loop.health.report(time.Now()).Updated.Equal(before) {
			t.Error("a heartbeat has services looked at")
		}
		n = n.DeepCopy()
		n.Spec.Taints = []corev1.Taint{{Key: "ToBeDeletedByClusterAutoscaler", Effect: corev1.TaintEffectNoSchedule}}
		w.must(w.client.CoreV1().Nodes().Update(t.Context(), n, metav1.UpdateOptions{}))
		if r := w.loop.health.report(time.Now()); *r.Eligible {
			t.Error("a node about to be deleted should get connections")
		}
	}, node("n1", "192.0.2.1", "10.244.1.0/24"), service("s", "10.96.0.1"), slice)
}

// TestNetwork: the pods' network is told of the node and of all others.
func TestNetwork(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		nodes := w.client.CoreV1().Nodes()
		if w.paper.node.Name != "n1" || len(w.paper.others) != 0 {
			t.Fatalf("%v and %v", w.paper.node, w.paper.others)
		}
		w.must(nodes.Create(t.Context(), node("n2", "192.0.2.2", "10.244.2.0/24"), metav1.CreateOptions{}))
		want := []network.Node{{Name: "n2", Addresses: addrs("192.0.2.2"), Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}}}
		if diff := cmp.Diff(want, w.paper.others, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
		w.must(nil, nodes.Delete(t.Context(), "n2", metav1.DeleteOptions{}))
		if len(w.paper.others) != 0 {
			t.Errorf("%v", w.paper.others)
		}
	}, node("n1", "192.0.2.1", "10.244.1.0/24"))
}

// TestLinks: interfaces and addresses are followed.
func TestLinks(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		if len(w.paper.interfaces) != 1 || !w.paper.addresses[netip.MustParseAddr("192.0.2.1")] {
			t.Fatalf("%v, %v", w.paper.interfaces, w.paper.addresses)
		}
		w.paper.mu.Lock()
		w.paper.ifaces = append(w.paper.ifaces, iface{index: 3, name: "pods0", up: true, ethernet: true, addrs: addrs("10.244.1.1")})
		w.paper.mu.Unlock()
		w.paper.news <- struct{}{}
		w.settle()
		if len(w.paper.interfaces) != 2 || !w.paper.interfaces[1].Inside || len(w.paper.addresses) != 2 {
			t.Errorf("%v, %v", w.paper.interfaces, w.paper.addresses)
		}
	}, node("n1", "192.0.2.1", "10.244.1.0/24"))
}

func TestAttachable(t *testing.T) {
	all := []iface{
		{index: 1, name: "lo", up: true, loop: true, addrs: addrs("127.0.0.1", "10.9.9.9")},
		{index: 5, name: "eth1", ethernet: true, addrs: addrs("198.51.100.1")},
		{index: 4, name: "wg0", up: true, addrs: addrs("fd00::7")},
		{index: 3, name: "pods0", up: true, ethernet: true},
		{index: 2, name: "eth0", up: true, ethernet: true, addrs: addrs("fe80::1", "192.0.2.9", "192.0.2.1", "2001:db8::1")},
		{index: 6, name: "veth1", up: true, ethernet: true, addrs: addrs("fe80::2")},
	}
	want := []datapath.Interface{
		{Index: 2, V4: netip.MustParseAddr("192.0.2.1"), V6: netip.MustParseAddr("2001:db8::1"), Ethernet: true},
		{Index: 3, Inside: true, Ethernet: true},
		{Index: 4, V6: netip.MustParseAddr("fd00::7")},
	}
	got := attachable(all, "pods0", addrs("192.0.2.1"))
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestNodePorts: they are open where they are told to be.
func TestNodePorts(t *testing.T) {
	all := []iface{{up: true, addrs: addrs("127.0.0.1", "192.0.2.1", "198.51.100.1", "fe80::1")}}
	for _, c := range []struct {
		name string
		cfg  Config
		open []string
	}{
		{"everywhere", Config{}, []string{"127.0.0.1", "192.0.2.1", "198.51.100.1"}},
		{"in a range", Config{NodePorts: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}, []string{"198.51.100.1"}},
		{"at the node's address", Config{Primary: true}, []string{"192.0.2.1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &loop{Config: c.cfg, node: lb.Node{Addresses: addrs("192.0.2.1")}}
			want := map[netip.Addr]bool{}
			for _, a := range addrs("127.0.0.1", "192.0.2.1", "198.51.100.1") {
				want[a] = false
			}
			for _, a := range addrs(c.open...) {
				want[a] = true
			}
			if got := nodeAddresses(all, l.open); !maps.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// TestStale: connected UDP sockets are aborted, once, when their backend goes,
// and no others.
func TestStale(t *testing.T) {
	dns := service("dns", "10.96.0.10")
	dns.Spec.Type = corev1.ServiceTypeNodePort
	dns.Spec.Ports = []corev1.ServicePort{{Port: 53, NodePort: 30053, Protocol: corev1.ProtocolUDP}}
	slice := func(addrs ...string) *discoveryv1.EndpointSlice {
		s := endpoints("dns", addrs...)
		s.Ports[0].Protocol = new(corev1.ProtocolUDP)
		return s
	}
	socket := func(cookie uint64, dialled, backend string) datapath.Socket {
		return datapath.Socket{Netns: 1, Cookie: cookie, Dialled: netip.MustParseAddrPort(dialled), Backend: netip.MustParseAddrPort(backend)}
	}
	stays := []datapath.Socket{
		socket(1, "10.96.0.10:53", "10.1.0.1:8080"), socket(2, "192.0.2.1:30053", "10.1.0.1:8080"),
	}
	goes := []datapath.Socket{
		socket(3, "10.96.0.10:53", "10.1.0.2:8080"), socket(4, "192.0.2.1:30053", "10.1.0.2:8080"), socket(5, "10.96.0.11:53", "10.1.0.1:8080"),
	}
	inBubble(t, func(w *world) { w.paper.connected = slices.Concat(goes, stays) }, func(w *world) {
		if len(w.paper.aborted) > 0 {
			t.Errorf("aborted %v though nothing went", w.paper.aborted)
		}
		w.paper.mu.Lock()
		w.paper.failAbort = errors.New("not now")
		w.paper.mu.Unlock()
		w.must(w.client.DiscoveryV1().EndpointSlices("default").Update(t.Context(), slice("10.1.0.1"), metav1.UpdateOptions{}))
		w.paper.mu.Lock()
		w.paper.failAbort = nil
		w.paper.mu.Unlock()
		time.Sleep(lastWait) // fake
		w.settle()
		if !slices.Equal(w.paper.aborted, goes) || !slices.Equal(w.paper.connected, stays) {
			t.Errorf("aborted %v, left %v", w.paper.aborted, w.paper.connected)
		}
		before := w.paper.asked
		w.must(w.client.DiscoveryV1().EndpointSlices("default").Update(t.Context(), slice("10.1.0.1", "10.1.0.3"), metav1.UpdateOptions{}))
		if w.paper.asked != before {
			t.Error("asked for sockets though no backend went")
		}
	}, node("n1", "192.0.2.1", "10.244.1.0/24"), dns, slice("10.1.0.1", "10.1.0.2"))
}
