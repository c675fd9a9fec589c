//go:build integration

package network_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/nftables"

	"github.com/knarr-dev/knarr/proxy/network"
	"github.com/knarr-dev/knarr/proxy/proxytest"
)

// node is one in a namespace of its own.
type node struct {
	*proxytest.Netns

	t    *testing.T
	cfg  network.Config
	self network.Node
}

// newNode makes node i of the network 192.0.2.0/24, which the namespace lan is
// the switch of. Its pods are in 10.244.i.0/24.
func newNode(t *testing.T, lan *proxytest.Netns, i int) *node {
	dir := t.TempDir()
	addr := fmt.Sprintf("192.0.2.%d", i)
	n := &node{Netns: proxytest.NewNetns(t), t: t, self: network.Node{
		Name:      fmt.Sprintf("n%d", i),
		Addresses: []netip.Addr{netip.MustParseAddr(addr)},
		Ranges:    []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", i))},
	}}
	n.cfg = network.Config{
		Conf: filepath.Join(dir, "net.d"), IPAM: filepath.Join(dir, "ipam"), Bridge: "pods0",
		Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
	}
	lan.Connect(n.self.Name, n.Netns, "eth0")
	lan.Bridge("lan0", n.self.Name)
	n.Link("eth0", addr+"/24")
	return n
}

// set makes the node's network and returns the error of it.
func (n *node) set(others ...network.Node) (err error) {
	n.Do(func() {
		var net *network.Network
		if net, err = network.Open(n.cfg); err != nil {
			return
		}
		err = net.Set(n.self, others)
		if closed := net.Close(); err == nil {
			err = closed
		}
	})
	return err
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) remove() {
	n.t.Helper()
	n.Do(func() { n.must(network.Remove(n.t.Context(), n.cfg)) })
}

// pod has the plugins make a pod's network as a runtime would, and starts a
// server in it.
func (n *node) pod(name string) (pod *proxytest.Netns, addr netip.Addr) {
	n.t.Helper()
	var dirs []string
	for _, dir := range []string{"/opt/cni/bin", "/usr/lib/cni"} {
		if _, err := os.Stat(filepath.Join(dir, "bridge")); err == nil {
			dirs = append(dirs, dir)
		}
	}
	if dirs == nil {
		n.t.Skip("no CNI plugins")
	}
	conf, err := libcni.ConfListFromFile(filepath.Join(n.cfg.Conf, "10-knarr.conflist"))
	n.must(err)
	pod = proxytest.NewNetns(n.t)
	cni := libcni.NewCNIConfigWithCacheDir(dirs, n.t.TempDir(), nil)
	rt := &libcni.RuntimeConf{ContainerID: name, NetNS: pod.Path(), IfName: "eth0"}
	n.Do(func() {
		result, err := cni.AddNetworkList(n.t.Context(), conf, rt)
		n.must(err)
		r, err := types100.NewResultFromResult(result)
		n.must(err)
		addr, _ = netip.AddrFromSlice(r.IPs[0].Address.IP.To4())
	})
	n.t.Cleanup(func() {
		n.Do(func() {
			if err := cni.DelNetworkList(context.WithoutCancel(n.t.Context()), conf, rt); err != nil {
				n.t.Error(err)
			}
		})
	})
	pod.Serve(name, netip.AddrPortFrom(addr, 80))
	return pod, addr
}

// sees has from ask a server, and tells who the server thinks that was.
func sees(from *proxytest.Netns, network string, server netip.Addr) string {
	a, err := from.Ask(network, netip.AddrPortFrom(server, 80).String())
	if err != nil {
		return err.Error()
	}
	return a.Client.Addr().String()
}

// TestPods: pods reach each other, on one node and across nodes, and the
// nodes, by their own addresses, and what is outside by that of their node.
func TestPods(t *testing.T) {
	lan, outside := proxytest.NewNetns(t), proxytest.NewNetns(t)
	one, two := newNode(t, lan, 1), newNode(t, lan, 2)
	lan.Connect("out", outside, "eth0")
	lan.Bridge("lan0", "out")
	outside.Link("eth0", "192.0.2.100/24")
	outside.Serve("outside", netip.MustParseAddrPort("192.0.2.100:80"))
	two.Serve("two", netip.MustParseAddrPort("192.0.2.2:80"))
	one.must(one.set(two.self))
	two.must(two.set(one.self))
	a, aAddr := one.pod("a")
	_, bAddr := one.pod("b")
	_, cAddr := two.pod("c")
	for _, c := range []struct {
		name   string
		from   *proxytest.Netns
		server netip.Addr
		client string
	}{
		{"pod to pod", a, bAddr, aAddr.String()},
		{"pod to pod of another node", a, cAddr, aAddr.String()},
		{"pod to another node", a, two.self.Addresses[0], aAddr.String()},
		{"pod to outside", a, netip.MustParseAddr("192.0.2.100"), "192.0.2.1"},
		{"node to its pod", one.Netns, aAddr, "10.244.1.1"},
		{"node to pod of another node", one.Netns, cAddr, "192.0.2.1"},
	} {
		for _, network := range []string{"tcp4", "udp4"} {
			if got := sees(c.from, network, c.server); got != c.client {
				t.Errorf("%s by %s: the server saw %s, want %s", c.name, network, got, c.client)
			}
		}
	}
	if entries, err := os.ReadDir(one.cfg.IPAM); err != nil || len(entries) == 0 {
		t.Errorf("addresses are noted elsewhere: %v, %v", entries, err)
	}
}

// TestRoutes: routes follow the nodes, and those of others are let alone.
func TestRoutes(t *testing.T) {
	lan := proxytest.NewNetns(t)
	n := newNode(t, lan, 1)
	n.Route("10.7.0.0/16", "192.0.2.200")
	routes := func() (out []string) {
		for line := range strings.Lines(n.Run("ip", "route")) {
			if f := strings.Fields(line); len(f) > 2 && f[1] == "via" {
				out = append(out, f[0]+" "+f[2])
			}
		}
		return out
	}
	peer := func(i int, addr string) network.Node {
		return network.Node{
			Name: fmt.Sprint(i), Addresses: []netip.Addr{netip.MustParseAddr(addr)},
			Ranges: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", i))},
		}
	}
	check := func(want ...string) {
		t.Helper()
		if got := routes(); strings.Join(got, ", ") != strings.Join(want, ", ") {
			t.Errorf("routes %q, want %q", got, want)
		}
	}
	n.must(n.set(peer(2, "192.0.2.2"), peer(3, "192.0.2.3")))
	check("10.7.0.0/16 192.0.2.200", "10.244.2.0/24 192.0.2.2", "10.244.3.0/24 192.0.2.3")
	n.must(n.set(peer(2, "192.0.2.22")))
	check("10.7.0.0/16 192.0.2.200", "10.244.2.0/24 192.0.2.22")
	if err := n.set(peer(4, "198.51.100.4"), peer(3, "192.0.2.3")); err == nil {
		t.Error("no error though a node is out of reach")
	}
	check("10.7.0.0/16 192.0.2.200", "10.244.3.0/24 192.0.2.3")
	n.remove()
	check("10.7.0.0/16 192.0.2.200")
}

// TestRemove: nothing is left, and there need not have been anything.
func TestRemove(t *testing.T) {
	n := newNode(t, proxytest.NewNetns(t), 1)
	n.remove()
	state := func() string {
		var b strings.Builder
		for line := range strings.Lines(n.Run("ip", "-br", "link")) {
			fmt.Fprintln(&b, strings.Fields(line)[0])
		}
		b.WriteString(n.Run("ip", "route"))
		n.Do(func() {
			rules, err := nftables.New()
			n.must(err)
			tables, err := rules.ListTables()
			n.must(err)
			for _, table := range tables {
				fmt.Fprintln(&b, "table", table.Name)
			}
		})
		return b.String()
	}
	n.Run("ip", "route", "add", "10.99.0.0/24", "via", "192.0.2.2", "proto", "107") // another cluster's
	before := state()
	for range 2 {
		n.must(n.set(network.Node{Name: "n2", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.2")}, Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}}))
		for _, want := range []string{"pods0\n", "table pods0\n", "10.244.2.0/24 via"} {
			if !strings.Contains(state(), want) {
				t.Errorf("no %q in %s", want, state())
			}
		}
		if err := os.MkdirAll(filepath.Join(n.cfg.IPAM, "knarr"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	n.remove()
	if after := state(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	for _, path := range []string{n.cfg.IPAM, filepath.Join(n.cfg.Conf, "10-knarr.conflist")} {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s: %v", path, err)
		}
	}
	n.remove()
}

// TestRange: a node that gets another range for its pods has a gateway there,
// and no longer in the old one.
func TestRange(t *testing.T) {
	n := newNode(t, proxytest.NewNetns(t), 1)
	n.must(n.set())
	hardware := strings.Fields(n.Run("ip", "-br", "link", "show", "pods0"))[2]
	n.self.Ranges = []netip.Prefix{netip.MustParsePrefix("10.244.9.0/24"), netip.MustParsePrefix("fd00:9::/64")}
	n.must(n.set())
	n.must(n.set())
	text := n.Run("ip", "addr", "show", "pods0")
	for want, there := range map[string]bool{"10.244.1.1/24": false, "10.244.9.1/24": true, "fd00:9::1/64": true, hardware: true} {
		if strings.Contains(text, want) != there {
			t.Errorf("%s: want %v in\n%s", want, there, text)
		}
	}
}
