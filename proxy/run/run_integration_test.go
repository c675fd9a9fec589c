//go:build integration

package run_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/knarr-dev/knarr/proxy/datapath"
	"github.com/knarr-dev/knarr/proxy/network"
	"github.com/knarr-dev/knarr/proxy/proxytest"
	"github.com/knarr-dev/knarr/proxy/run"
)

// world is a node in a namespace of its own, with an API server of sorts.
type world struct {
	t         *testing.T
	node, lan *proxytest.Netns
	client    kubernetes.Interface
	cfg       run.Config
}

// newWorld has the node n1 at 192.0.2.1, its neighbour at 192.0.2.2, and servers a to d on it at
// 10.1.0.1:8080 to 10.1.0.4:8080.
func newWorld(t *testing.T) *world {
	w := &world{t: t, node: proxytest.NewNetns(t), lan: proxytest.NewNetns(t)}
	dir := t.TempDir()
	w.cfg = run.Config{
		Node:     "n1",
		Datapath: datapath.Config{Dir: proxytest.PinDir(t), Cgroup: proxytest.Cgroup(t)},
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
				return fmt.Errorf("%s: %w", network, cmp.Or(err, errors.New("an answer")))
			}
		}
		return nil
	}
	if err := proxytest.Eventually(refused); err != nil {
		t.Errorf("want refusals: %v", err)
	}
	if text, err := os.ReadFile(filepath.Join(w.cfg.Network.Conf, "10-knarr.conflist")); err != nil {
		t.Error(err)
	} else {
		t.Logf("%s", text)
	}
	t.Log(w.node.Run("ip", "addr"))
}
