package network

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

func addrs(texts ...string) (out []netip.Addr) {
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

func node(name string, addresses []netip.Addr, ranges ...string) Node {
	return Node{Name: name, Addresses: addresses, Ranges: prefixes(ranges...)}
}

var comparable = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}

func TestDescribe(t *testing.T) {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	n.Spec.PodCIDR, n.Spec.PodCIDRs = "10.244.1.0/24", []string{"10.244.1.7/24", "nonsense", "fd00:1::/64"}
	n.Status.Addresses = []corev1.NodeAddress{
		{Type: corev1.NodeHostName, Address: "n1"},
		{Type: corev1.NodeInternalIP, Address: "192.0.2.1"},
		{Type: corev1.NodeExternalIP, Address: "198.51.100.1"},
		{Type: corev1.NodeInternalIP, Address: "2001:db8::1"},
	}
	want := node("n1", addrs("192.0.2.1", "2001:db8::1"), "10.244.1.0/24", "fd00:1::/64")
	if diff := cmp.Diff(want, Describe(n), comparable); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	n.Spec.PodCIDRs = nil
	if got := Describe(n).Ranges; !slices.Equal(got, prefixes("10.244.1.0/24")) {
		t.Errorf("with podCIDR only: %v", got)
	}
}

func TestRoutes(t *testing.T) {
	own := node("n1", addrs("192.0.2.1", "2001:db8::1"), "10.244.1.0/24", "fd00:1::/64")
	route := func(to, via string) Route { return Route{netip.MustParsePrefix(to), netip.MustParseAddr(via)} }
	for _, c := range []struct {
		name   string
		others []Node
		want   []Route
	}{
		{"alone", nil, nil},
		{"itself", []Node{own}, nil},
		{
			"both families, each by its own",
			[]Node{node("n2", addrs("192.0.2.2", "192.0.2.9", "2001:db8::2"), "10.244.2.0/24", "fd00:2::/64")},
			[]Route{route("10.244.2.0/24", "192.0.2.2"), route("fd00:2::/64", "2001:db8::2")},
		},
		{"without an address of the family", []Node{node("n2", addrs("192.0.2.2"), "fd00:2::/64")}, nil},
		{"not known where", []Node{node("n2", nil, "10.244.2.0/24")}, nil},
		{"without pods", []Node{node("n2", addrs("192.0.2.2"))}, nil},
		{"with our range", []Node{node("n2", addrs("192.0.2.2"), "10.244.1.0/24")}, nil},
		{
			"two with one range",
			[]Node{node("n2", addrs("192.0.2.2"), "10.244.2.0/24"), node("n3", addrs("192.0.2.3"), "10.244.2.0/24")},
			[]Route{route("10.244.2.0/24", "192.0.2.2")},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, Routes(own, c.others), comparable, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestSpans(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []netip.Prefix
		want []string // first and last, in turn
	}{
		{"none", nil, nil},
		{"one", prefixes("10.244.0.0/16"), []string{"10.244.0.0", "10.244.255.255"}},
		{"one in another", prefixes("10.244.1.0/24", "10.244.0.0/16"), []string{"10.244.0.0", "10.244.255.255"}},
		{"side by side", prefixes("10.244.1.0/24", "10.244.0.0/24", "10.244.3.0/24"), []string{"10.244.0.0", "10.244.1.255", "10.244.3.0", "10.244.3.255"}},
		{"all", prefixes("0.0.0.0/0", "10.0.0.1/32"), []string{"0.0.0.0", "255.255.255.255"}},
		{"two families", prefixes("::/127", "255.255.255.255/32"), []string{"255.255.255.255", "255.255.255.255", "::", "::1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var want []span
			for pair := range slices.Chunk(addrs(c.want...), 2) {
				want = append(want, span{pair[0], pair[1]})
			}
			if got := spans(c.in); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// TestFence: pods' own addresses are known to all pods and nodes, and to none
// else.
func TestFence(t *testing.T) {
	own := node("n1", addrs("192.0.2.1"), "10.244.1.0/24")
	f := fence(prefixes("10.244.0.0/16"), own, []Node{node("n2", addrs("192.0.2.7"), "10.9.0.0/24")})
	if !slices.Equal(f.pods, spans(own.Ranges)) {
		t.Errorf("pods %v", f.pods)
	}
	for text, want := range map[string]bool{
		"10.244.200.1": true, "192.0.2.1": true, "192.0.2.7": true, "10.9.0.3": true, "224.0.0.251": true,
		"192.0.2.8": false, "10.9.1.0": false, "8.8.8.8": false,
	} {
		a := netip.MustParseAddr(text)
		in := slices.ContainsFunc(f.inside, func(s span) bool { return s.first.Is4() && s.first.Compare(a) <= 0 && a.Compare(s.last) <= 0 })
		if in != want {
			t.Errorf("%s inside: %v", text, in)
		}
	}
}

const twoFamilies = `{
  "cniVersion": "1.0.0",
  "name": "knarr",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "pods0",
      "isGateway": true,
      "forceAddress": true,
      "hairpinMode": true,
      "ipMasq": false,
      "mtu": 1400,
      "ipam": {
        "type": "host-local",
        "dataDir": "/somewhere",
        "ranges": [
          [
            {
              "subnet": "10.244.1.0/24"
            }
          ],
          [
            {
              "subnet": "fd00:1::/64"
            }
          ]
        ],
        "routes": [
          {
            "dst": "0.0.0.0/0"
          },
          {
            "dst": "::/0"
          }
        ]
      }
    }
  ]
}
`

// TestConf: the configuration is written once, and again only when it is to
// be another.
func TestConf(t *testing.T) {
	n := &Network{cfg: Config{Conf: filepath.Join(t.TempDir(), "net.d"), Bridge: "pods0", IPAM: "/somewhere"}}
	path := filepath.Join(n.cfg.Conf, confName)
	write := func(mtu int) os.FileInfo {
		t.Helper()
		if err := n.writeConf(prefixes("10.244.1.0/24", "fd00:1::/64"), mtu); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	first := write(1400)
	got, err := os.ReadFile(path)
	if diff := cmp.Diff(twoFamilies, string(got)); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
	if !os.SameFile(first, write(1400)) {
		t.Error("written though it was right")
	}
	if os.SameFile(first, write(1500)) {
		t.Error("written in place, or not at all")
	}
	if entries, err := os.ReadDir(n.cfg.Conf); err != nil || len(entries) != 1 {
		t.Errorf("left in the directory: %v, %v", entries, err)
	}
}
