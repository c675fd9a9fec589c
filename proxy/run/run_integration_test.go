//go:build integration

package run_test

import (
	"bufio"
	gocmp "cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"github.com/knarr-dev/knarr/proxy/datapath"
	"github.com/knarr-dev/knarr/proxy/lb"
	"github.com/knarr-dev/knarr/proxy/network"
	"github.com/knarr-dev/knarr/proxy/proxytest"
	"github.com/knarr-dev/knarr/proxy/run"
	"github.com/knarr-dev/knarr/registry/registrytest"
)

// world is a node in a namespace of its own, with an API server of sorts.
type world struct {
	t         *testing.T
	node, lan *proxytest.Netns
	outer     string // cgroup beside that of the node's processes
	client    kubernetes.Interface
	cfg       run.Config
}

// newWorld has the node n1 at 192.0.2.1, its neighbour at 192.0.2.2, and servers a to d on it at
// 10.1.0.1:8080 to 10.1.0.4:8080.
func newWorld(t *testing.T) *world {
	w := &world{t: t, node: proxytest.NewNetns(t), lan: proxytest.NewNetns(t), outer: proxytest.Cgroup(t)}
	dir := t.TempDir()
	w.cfg = run.Config{
		Node:     "n1",
		Datapath: datapath.Config{Dir: proxytest.PinDir(t), Cgroup: filepath.Join(w.outer, "node")},
		Network: network.Config{
			Conf: filepath.Join(dir, "net.d"), IPAM: filepath.Join(dir, "ipam"), Bridge: "pods0",
			Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
		},
		Health: "127.0.0.1:10256", Metrics: "127.0.0.1:10249",
	}
	t.Cleanup(func() {
		w.node.Do(func() {
			if err := run.Remove(context.WithoutCancel(t.Context()), w.cfg); err != nil {
				t.Error(err)
			}
		})
	})
	if err := os.Mkdir(w.cfg.Datapath.Cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.enter(w.outer)
		if err := proxytest.Eventually(func() error { return os.Remove(w.cfg.Datapath.Cgroup) }); err != nil {
			t.Error(err)
		}
	})
	w.enter(w.cfg.Datapath.Cgroup)
	w.node.Connect("eth0", w.lan, "eth0")
	w.node.Link("eth0", "192.0.2.1/24")
	w.lan.Link("eth0", "192.0.2.2/24")
	for i, name := range []string{"a", "b", "c", "d"} {
		addr := netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 1)})
		w.node.Link("lo", addr.String()+"/32")
		w.node.Serve(name, netip.AddrPortFrom(addr, 8080))
	}
	w.client = fake.NewClientset(nodeObject("n1", "192.0.2.1", "10.244.1.0/24"))
	return w
}

// enter moves the test's process to a cgroup.
func (w *world) enter(cgroup string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// outside calls f as if by a process of another machine, whose sockets the
// node's programs know nothing of.
func (w *world) outside(f func()) {
	w.t.Helper()
	w.enter(w.outer)
	defer w.enter(w.cfg.Datapath.Cgroup)
	f()
}

func nodeObject(name, addr string, ranges ...string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.NodeSpec{PodCIDRs: ranges},
		Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: addr}}},
	}
}

// start runs a proxy until the test ends or stop is called.
func (w *world) start() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	cfg := w.cfg
	cfg.Informers = informers.NewSharedInformerFactory(w.client, 0)
	done := make(chan error, 1)
	go w.node.Do(func() { done <- run.Run(ctx, cfg) })
	stopped := false
	stop = func() {
		cancel()
		if stopped {
			return
		}
		stopped = true
		if err := <-done; err != nil {
			w.t.Errorf("run: %v", err)
		}
		cfg.Informers.Shutdown()
	}
	w.t.Cleanup(stop)
	return stop
}

// ready waits until the proxy is. To load its programs takes a busy machine
// some seconds.
func (w *world) ready() {
	w.t.Helper()
	var err error
	for range 4 {
		if err = proxytest.Eventually(func() error { return w.get(10256, "/healthz") }); err == nil {
			return
		}
	}
	w.t.Fatalf("the proxy does not become ready: %v", err)
}

// service makes a service at 10.96.0.1:80 by TCP and UDP, whose endpoints are
// these servers.
func (w *world) service(servers string) {
	w.t.Helper()
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}}
	svc.Spec.Type = corev1.ServiceTypeNodePort
	svc.Spec.ClusterIP, svc.Spec.ClusterIPs = "10.96.0.1", []string{"10.96.0.1"}
	svc.Spec.Ports = []corev1.ServicePort{
		{Name: "t", Port: 80, NodePort: 30080, Protocol: corev1.ProtocolTCP},
		{Name: "u", Port: 80, NodePort: 30080, Protocol: corev1.ProtocolUDP},
	}
	if _, err := w.client.CoreV1().Services("default").Create(w.t.Context(), svc, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.client.DiscoveryV1().EndpointSlices("default").Create(w.t.Context(), slice(servers), metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// endpoints replaces the service's endpoints.
func (w *world) endpoints(servers string) {
	w.t.Helper()
	if _, err := w.client.DiscoveryV1().EndpointSlices("default").Update(w.t.Context(), slice(servers), metav1.UpdateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

func slice(servers string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: "s-1", Labels: map[string]string{discoveryv1.LabelServiceName: "s"},
	}}
	s.AddressType = discoveryv1.AddressTypeIPv4
	s.Ports = []discoveryv1.EndpointPort{
		{Name: new("t"), Port: new(int32(8080)), Protocol: new(corev1.ProtocolTCP)},
		{Name: new("u"), Port: new(int32(8080)), Protocol: new(corev1.ProtocolUDP)},
	}
	for _, r := range servers {
		addr := netip.AddrFrom4([4]byte{10, 1, 0, byte(r - 'a' + 1)})
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{addr.String()}, NodeName: new("n1")})
	}
	return s
}

// eventually waits for an answer by a server.
func (w *world) eventually(network, addr, server string) {
	w.t.Helper()
	if err := proxytest.Eventually(func() error { return w.answers(network, addr, server) }); err != nil {
		w.t.Fatalf("%s %s: %v", network, addr, err)
	}
}

func (w *world) answers(network, addr, server string) error {
	a, err := w.node.Ask(network, addr)
	if err == nil && a.Name != server {
		err = fmt.Errorf("answer by %s, want %s", a.Name, server)
	}
	return err
}

// TestService: a service is reached, follows its endpoints within a second and
// refuses when it has none.
func TestService(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.ready()
	w.service("a")
	for _, network := range []string{"tcp4", "udp4"} {
		for _, addr := range []string{"10.96.0.1:80", "192.0.2.1:30080", "127.0.0.1:30080"} {
			w.eventually(network, addr, "a")
		}
	}
	began := time.Now()
	w.endpoints("b")
	w.eventually("tcp4", "10.96.0.1:80", "b")
	if d := time.Since(began); d > time.Second {
		t.Errorf("the endpoint changed after %v", d)
	}
	if by, err := w.node.Count("tcp4", "10.96.0.1:80", 50); err != nil || by["b"] != 50 {
		t.Errorf("answers by %v, %v", by, err)
	}
	w.endpoints("")
	refused := func() error {
		for _, network := range []string{"tcp4", "udp4"} {
			if _, err := w.node.Ask(network, "10.96.0.1:80"); !errors.Is(err, syscall.ECONNREFUSED) {
				return fmt.Errorf("%s: %w", network, gocmp.Or(err, errors.New("an answer")))
			}
		}
		return nil
	}
	if err := proxytest.Eventually(refused); err != nil {
		t.Errorf("want refusals: %v", err)
	}
}

// TestStale: who is connected by UDP to a backend that goes knows at once, in
// the node's namespace and in another, and who is connected to another stays so.
func TestStale(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.ready()
	w.service("a")
	w.eventually("udp4", "10.96.0.1:80", "a")
	pod := proxytest.NewNetns(t)
	w.node.Connect("veth0", pod, "eth0")
	w.node.Link("veth0", "10.2.0.1/24")
	pod.Link("eth0", "10.2.0.2/24")
	pod.Route("10.0.0.0/8", "10.2.0.1")
	// A namespace is found by its processes.
	sleep := exec.Command("sleep", "1000")
	pod.Do(func() {
		if err := sleep.Start(); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() {
		_ = sleep.Process.Kill()
		_ = sleep.Wait()
	})
	connect := func(from *proxytest.Netns, network, addr string) (c net.Conn) {
		from.Do(func() {
			var err error
			if c, err = net.Dial(network, addr); err != nil {
				t.Fatal(err)
			}
		})
		t.Cleanup(func() { _ = c.Close() })
		if a, err := proxytest.Talk(c); err != nil || a.Name != "a" {
			t.Fatalf("%v, %v", a, err)
		}
		return c
	}
	old := []net.Conn{
		connect(w.node, "udp4", "10.96.0.1:80"), connect(w.node, "udp", "[::ffff:10.96.0.1]:80"), connect(pod, "udp4", "10.96.0.1:80"),
	}
	direct := connect(pod, "udp4", "10.1.0.1:8080")
	w.endpoints("ab")
	w.eventually("udp4", "10.96.0.1:80", "b")
	for i, c := range old {
		if a, err := proxytest.Talk(c); err != nil || a.Name != "a" {
			t.Errorf("socket %d, whose backend stays: %v, %v", i, a, err)
		}
	}
	w.endpoints("b")
	for i, c := range old {
		err := proxytest.Eventually(func() error {
			_, err := proxytest.Talk(c)
			if errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.EDESTADDRREQ) { // to a reader, and to a writer
				return nil
			}
			return fmt.Errorf("want an abort, not %w", gocmp.Or(err, errors.New("an answer")))
		})
		if err != nil {
			t.Errorf("socket %d: %v", i, err)
		}
	}
	if a, err := proxytest.Talk(direct); err != nil || a.Name != "a" {
		t.Errorf("a socket that has nothing to do with it: %v, %v", a, err)
	}
}

// TestOutside: node ports and host ports are open to neighbours at every
// address of the node, also one that it gets later, and to the node itself.
func TestOutside(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.ready()
	w.service("a")
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}}
	pod.Spec.NodeName = "n1"
	pod.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{HostPort: 8000, ContainerPort: 8080}}}}
	pod.Status.PodIPs = []corev1.PodIP{{IP: "10.1.0.2"}}
	if _, err := w.client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	other := proxytest.NewNetns(t)
	w.node.Connect("eth1", other, "eth0")
	w.node.Link("eth1", "198.51.100.1/24")
	other.Link("eth0", "198.51.100.2/24")
	for _, c := range []struct {
		from         *proxytest.Netns
		addr, server string
		client       string
	}{
		{w.lan, "192.0.2.1:30080", "a", "192.0.2.2"},
		{other, "198.51.100.1:30080", "a", "198.51.100.2"},
		{w.lan, "192.0.2.1:8000", "b", "192.0.2.2"},
		{other, "198.51.100.1:8000", "b", "198.51.100.2"},
		{w.node, "127.0.0.1:8000", "b", ""},
		{w.node, "192.0.2.1:8000", "b", ""},
	} {
		err := proxytest.Eventually(func() error {
			a, err := w.ask(c.from, "tcp4", c.addr)
			if err == nil && (a.Name != c.server || c.client != "" && a.Client.Addr().String() != c.client) {
				err = fmt.Errorf("%v", a)
			}
			return err
		})
		if err != nil {
			t.Errorf("%s from %q: %v", c.addr, c.client, err)
		}
	}
}

// ask asks from a namespace, as a process of the node if that is the node's.
func (w *world) ask(from *proxytest.Netns, network, addr string) (a proxytest.Answer, err error) {
	w.t.Helper()
	f := func() { a, err = from.Ask(network, addr) }
	if from == w.node {
		f()
	} else {
		w.outside(f)
	}
	return a, err
}

// dial opens a connection that is closed with the test, likewise.
func (w *world) dial(from *proxytest.Netns, addr string) (c net.Conn) {
	w.t.Helper()
	var err error
	f := func() { from.Do(func() { c, err = net.DialTimeout("tcp", addr, time.Second) }) }
	if from == w.node {
		f()
	} else {
		w.outside(f)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// table returns what the kernel's maps hold.
func (w *world) table() func() lb.Table {
	w.t.Helper()
	var d *datapath.Datapath
	w.node.Do(func() {
		var err error
		if d, err = datapath.Open(w.cfg.Datapath); err != nil {
			w.t.Fatal(err)
		}
	})
	w.t.Cleanup(func() {
		if err := d.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return func() lb.Table {
		t, err := d.Dump()
		if err != nil {
			w.t.Error(err)
		}
		return t
	}
}

// TestRestart: what is established stays while the proxy is away and when it
// comes back, new connections go where they did, and no entry is written anew.
// One that comes back and finds no API server leaves all as it is.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	stop := w.start()
	w.ready()
	w.service("a")
	w.eventually("tcp4", "10.96.0.1:80", "a")
	conns := []net.Conn{w.dial(w.node, "10.96.0.1:80"), w.dial(w.lan, "192.0.2.1:30080")}
	table := w.table()
	before := table()
	works := func(when string) {
		t.Helper()
		for i, c := range conns {
			if a, err := proxytest.Talk(c); err != nil || a.Name != "a" {
				t.Errorf("%s, connection %d: %v, %v", when, i, a, err)
			}
		}
		if err := w.answers("tcp4", "10.96.0.1:80", "a"); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if a, err := w.ask(w.lan, "udp4", "192.0.2.1:30080"); err != nil || a.Name != "a" {
			t.Errorf("%s, from outside: %v, %v", when, a, err)
		}
		if diff := cmp.Diff(before, table(), cmpopts.EquateComparable(lb.Frontend{}, lb.Backend{})); diff != "" {
			t.Errorf("%s, -before +after:\n%s", when, diff)
		}
	}
	works("at first")
	stop()
	works("while the proxy is away")

	real := w.client
	none := fake.NewClientset()
	asked := make(chan struct{}, 100)
	none.PrependReactor("list", "services", func(clienttesting.Action) (bool, runtime.Object, error) {
		asked <- struct{}{}
		return true, nil, errors.New("no API server")
	})
	w.client = none
	stop = w.start()
	for range 2 { // so that the first answer has been dealt with
		<-asked
	}
	works("with a proxy without an API server")
	stop()

	w.client = real
	w.start()
	w.ready()
	works("when the proxy is back")
	w.endpoints("b")
	w.eventually("tcp4", "10.96.0.1:80", "b")
}

// get asks for a path on a port of the node, and fails unless that is there.
func (w *world) get(port int, path string) error {
	body, err := w.read(port, path)
	if err == nil && body.code != http.StatusOK {
		err = fmt.Errorf("%d %s", body.code, body.text)
	}
	return err
}

type answer struct {
	code int
	text string
}

func (w *world) read(port int, path string) (a answer, err error) {
	w.node.Do(func() {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second); err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		if _, err = fmt.Fprintf(c, "GET %s HTTP/1.0\r\n\r\n", path); err != nil {
			return
		}
		var resp *http.Response
		if resp, err = http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			return
		}
		text, failed := io.ReadAll(resp.Body)
		a, err = answer{resp.StatusCode, string(text)}, errors.Join(failed, resp.Body.Close())
	})
	return a, err
}

// TestServed: the node tells how it is, and how many endpoints a service with
// a local policy has.
func TestServed(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.ready()
	w.service("ab")
	svc, err := w.client.CoreV1().Services("default").Get(t.Context(), "s", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	svc.Spec.Type, svc.Spec.ExternalTrafficPolicy, svc.Spec.HealthCheckNodePort = corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal, 31000
	if _, err := w.client.CoreV1().Services("default").Update(t.Context(), svc, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		port int
		path string
		want answer
	}{
		{10256, "/healthz", answer{200, `"nodeEligible":true`}},
		{10256, "/livez", answer{200, `"lastUpdated"`}},
		{10249, "/proxyMode", answer{200, "ebpf"}},
		{10249, "/metrics", answer{200, "kubeproxy_sync_proxy_rules_duration_seconds_count"}},
		{31000, "/", answer{200, `{"service":{"namespace":"default","name":"s"},"localEndpoints":2,"serviceProxyHealthy":true}`}},
	} {
		err := proxytest.Eventually(func() error {
			a, err := w.read(c.port, c.path)
			if err == nil && (a.code != c.want.code || !strings.Contains(a.text, c.want.text)) {
				err = fmt.Errorf("%v", a)
			}
			return err
		})
		if err != nil {
			t.Errorf("%d%s: %v; want %v", c.port, c.path, err, c.want)
		}
	}
}

// TestRemove: nothing is left, and there need not have been anything.
func TestRemove(t *testing.T) {
	w := newWorld(t)
	state := func() string {
		var b strings.Builder
		for line := range strings.Lines(w.node.Run("ip", "-br", "link")) {
			fmt.Fprintln(&b, strings.Fields(line)[0])
		}
		b.WriteString(w.node.Run("ip", "route"))
		return b.String()
	}
	remove := func() {
		t.Helper()
		w.node.Do(func() {
			if err := run.Remove(t.Context(), w.cfg); err != nil {
				t.Error(err)
			}
		})
	}
	before := state()
	remove()
	stop := w.start()
	w.ready()
	w.service("a")
	w.eventually("tcp4", "10.96.0.1:80", "a")
	stop()
	remove()
	if after := state(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if entries, err := os.ReadDir(w.cfg.Datapath.Dir); err != nil || len(entries) > 0 {
		t.Errorf("pinned: %v, %v", entries, err)
	}
	if a, err := w.node.Ask("tcp4", "10.96.0.1:80"); err == nil {
		t.Errorf("the service still answers: %v", a)
	}
}

// TestAllowed: the roles of an API server let the proxy's user see all that
// it needs, of pods those of its node.
func TestAllowed(t *testing.T) {
	w := newWorld(t)
	server := registrytest.Run(t)
	admin := kubernetes.NewForConfigOrDie(server.Client(registrytest.Admin))
	if _, err := admin.CoreV1().Nodes().Create(t.Context(), nodeObject("n1", "192.0.2.1", "10.244.1.0/24"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	user := registrytest.Admin
	user.Name, user.Groups = "system:kube-proxy", []string{"system:authenticated"}
	w.client = kubernetes.NewForConfigOrDie(server.Client(user))
	w.cfg.Pods = coreinformers.NewFilteredPodInformer(w.client, "", 0, cache.Indexers{}, func(l *metav1.ListOptions) { l.FieldSelector = "spec.nodeName=n1" })
	stop := w.start()
	defer stop() // before the server's end
	w.ready()
	pods := admin.CoreV1().Pods("default")
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}}
	pod.Spec.NodeName, pod.Spec.AutomountServiceAccountToken = "n1", new(false)
	pod.Spec.Containers = []corev1.Container{{Name: "c", Image: "i", Ports: []corev1.ContainerPort{{HostPort: 8000, ContainerPort: 8080}}}}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}} // which a controller would make
	if _, err := admin.CoreV1().ServiceAccounts("default").Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod, err := pods.Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod.Status.PodIP, pod.Status.PodIPs = "10.1.0.2", []corev1.PodIP{{IP: "10.1.0.2"}}
	if _, err := pods.UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("tcp4", "127.0.0.1:8000", "b")
}
