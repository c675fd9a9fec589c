// Package lbtest holds the suite that every implementation of lb.Maps passes,
// and the examples of what lb decides: each is a world in YAML, the table that
// comes of it, and worlds that follow with the changes they cause.
package lbtest

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/knarr-dev/knarr/proxy/lb"
)

//go:embed testdata/*.txtar
var examples embed.FS

// Test runs the suite. Open returns empty maps. Done is told the name of each
// example and how it should read; nil compares it with how it does.
func Test(t *testing.T, open func(t *testing.T) lb.Maps, done func(t *testing.T, name string, got []byte)) {
	names, err := examples.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		t.Run(strings.TrimSuffix(n.Name(), ".txtar"), func(t *testing.T) {
			want, err := examples.ReadFile(path.Join("testdata", n.Name()))
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, want, open(t))
			if done != nil {
				done(t, n.Name(), got)
			} else if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	t.Run("anything", func(t *testing.T) { anything(t, open(t)) })
	t.Run("restart", func(t *testing.T) { restart(t, open(t)) })
}

// replay lets the worlds of an example follow one another and returns the
// example with what came of them.
func replay(t *testing.T, text []byte, m lb.Maps) []byte {
	in := txtar.Parse(text)
	out := &txtar.Archive{Comment: in.Comment}
	state := lb.NewState(lb.NewTable())
	owners := map[lb.Owner]bool{}
	for _, f := range in.Files {
		if !strings.HasSuffix(f.Name, ".yaml") {
			continue
		}
		first := len(out.Files) == 0
		out.Files = append(out.Files, f)
		plans := decode(t, f.Data).plans()
		for o := range owners {
			if _, ok := plans[o]; !ok {
				plans[o] = lb.Plan{}
			}
		}
		for _, o := range slices.SortedFunc(maps.Keys(plans), byName) {
			owners[o] = true
			if err := state.Set(o, plans[o]); err != nil {
				t.Fatal(err)
			}
		}
		if !first {
			out.Files = append(out.Files, txtar.File{Name: "changes", Data: list(state.Changes())})
		}
		converge(t, state, m)
		have, err := m.Dump()
		if err != nil {
			t.Fatal(err)
		}
		out.Files = append(out.Files, txtar.File{Name: "table", Data: append([]byte(have.String()), health(plans)...)})
	}
	return txtar.Format(out)
}

func byName(a, b lb.Owner) int {
	return strings.Compare(a.Kind+"/"+a.Namespace+"/"+a.Name, b.Kind+"/"+b.Namespace+"/"+b.Name)
}

func list(cs []lb.Change) []byte {
	var b bytes.Buffer
	for _, c := range cs {
		fmt.Fprintln(&b, c)
	}
	return b.Bytes()
}

func health(plans map[lb.Owner]lb.Plan) []byte {
	var b bytes.Buffer
	for _, o := range slices.SortedFunc(maps.Keys(plans), byName) {
		if h := plans[o].Health; h != nil {
			fmt.Fprintf(&b, "health %s/%s on %d: %d ready\n", o.Namespace, o.Name, h.Port, h.Ready)
		}
	}
	return b.Bytes()
}

// converge syncs until it went well, which for maps that fail now and then
// takes several attempts.
func converge(t *testing.T, s *lb.State, m lb.Maps) {
	for range 1000 {
		if _, err := s.Sync(m); err == nil {
			return
		} else if !errors.Is(err, ErrChance) {
			t.Fatal(err)
		}
	}
	t.Fatal("no success in 1000 attempts")
}

// A world is what an example shows of the cluster.
type world struct {
	node     lb.Node
	services []*corev1.Service
	slices   []*discoveryv1.EndpointSlice
	pods     []*corev1.Pod
}

func decode(t *testing.T, text []byte) world {
	w := world{node: lb.Node{Name: "here", Zone: "a", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}
	for doc := range bytes.SplitSeq(text, []byte("\n---\n")) {
		if len(bytes.TrimSpace(doc)) == 0 {
			continue
		}
		obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(doc, nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		switch o := obj.(type) {
		case *corev1.Service:
			w.services = append(w.services, o)
		case *discoveryv1.EndpointSlice:
			w.slices = append(w.slices, o)
		case *corev1.Pod:
			w.pods = append(w.pods, o)
		}
	}
	return w
}

func (w world) plans() map[lb.Owner]lb.Plan {
	out := map[lb.Owner]lb.Plan{}
	for _, svc := range w.services {
		var its []*discoveryv1.EndpointSlice
		for _, s := range w.slices {
			if s.Namespace == svc.Namespace && s.Labels[discoveryv1.LabelServiceName] == svc.Name {
				its = append(its, s)
			}
		}
		out[lb.Owner{Kind: "service", Namespace: svc.Namespace, Name: svc.Name}] = lb.Services(svc, its, w.node)
	}
	for _, p := range w.pods {
		out[lb.Owner{Kind: "pod", Namespace: p.Namespace, Name: p.Name}] = lb.Pods(p)
	}
	return out
}

// anything throws plans at random at the maps: after each Sync they hold
// what is wanted, and nothing is left to do.
func anything(t *testing.T, m lb.Maps) {
	dice := rand.New(rand.NewPCG(1, 2))
	state := lb.NewState(lb.NewTable())
	for range 300 {
		o := lb.Owner{Kind: "service", Name: string(rune('a' + dice.IntN(20)))}
		if err := state.Set(o, randomPlan(dice)); err != nil {
			t.Fatal(err)
		}
		if dice.IntN(3) > 0 {
			continue
		}
		converge(t, state, m)
		same(t, m, state.Want())
		if left := state.Changes(); len(left) > 0 {
			t.Fatalf("left to do: %v", left)
		}
	}
}

func randomPlan(dice *rand.Rand) (p lb.Plan) {
	for i := range dice.IntN(4) {
		c := lb.Claim{Name: string(rune('0' + i)), Proto: lb.TCP, Frontends: map[lb.Frontend]lb.Flags{}}
		for range 1 + dice.IntN(3) {
			c.Frontends[lb.Frontend{Addr: addr(dice, 4, 80), Proto: lb.TCP}] = lb.Flags(dice.IntN(32))
		}
		seen := map[netip.AddrPort]bool{}
		for range dice.IntN(30) {
			if a := addr(dice, 250, 8080); !seen[a] {
				seen[a] = true
				c.Service.Backends = append(c.Service.Backends, lb.Backend{Addr: a, Local: dice.IntN(2) == 0})
			}
		}
		n := len(c.Service.Backends)
		c.Service.Cluster = dice.IntN(n + 1)
		c.Service.Local = n - dice.IntN(c.Service.Cluster+1)
		c.Service.Affinity = uint32(dice.IntN(2) * 10800)
		if dice.IntN(4) == 0 {
			c.Service.Sources = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}
		}
		p.Claims = append(p.Claims, c)
	}
	return p
}

func addr(dice *rand.Rand, n int, port uint16) netip.AddrPort {
	last := byte(1 + dice.IntN(n))
	if dice.IntN(2) == 0 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, last}), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 15: last}), port)
}

// restart begins anew on maps that are in use: what is as it should be is
// not written again, and what nobody asks for goes.
func restart(t *testing.T, m lb.Maps) {
	set := func(s *lb.State, i int) {
		front := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), 80)
		back := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 2, 0, byte(i)}), 80)
		shared := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 3, 0, byte(i / 2)}), 80)
		c := lb.Claim{
			Name: "http", Proto: lb.UDP, Frontends: map[lb.Frontend]lb.Flags{{Addr: front, Proto: lb.UDP}: 0, {Addr: shared, Proto: lb.UDP}: 0},
			Service: lb.Service{Backends: []lb.Backend{{Addr: back}}, Cluster: 1, Affinity: uint32(i % 2)},
		}
		if err := s.Set(lb.Owner{Kind: "service", Name: string(rune('a' + i))}, lb.Plan{Claims: []lb.Claim{c}}); err != nil {
			t.Fatal(err)
		}
	}
	old := lb.NewState(lb.NewTable())
	for i := range 20 {
		set(old, i)
	}
	converge(t, old, m)
	have, err := m.Dump()
	if err != nil {
		t.Fatal(err)
	}
	state := lb.NewState(have)
	for i := range 19 { // in another order
		set(state, 18-i)
	}
	if got := state.Changes(); len(got) != 2 {
		t.Errorf("changes: %v, want only the frontend and the service of the one that went", got)
	}
	converge(t, state, m)
	same(t, m, state.Want())
}

func same(t *testing.T, m lb.Maps, want lb.Table) {
	t.Helper()
	have, err := m.Dump()
	if err != nil {
		t.Fatal(err)
	}
	opts := cmp.Options{
		cmpopts.EquateEmpty(),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	}
	if diff := cmp.Diff(want, have, opts); diff != "" {
		t.Fatalf("-want +have:\n%s", diff)
	}
}

// ErrChance is why a Failing map fails.
var ErrChance = errors.New("bad luck")

// Failing are maps that fail one call in ten, always the same ones.
type Failing struct {
	lb.Maps

	Dice *rand.Rand
}

func (f Failing) luck() error {
	if f.Dice.IntN(10) == 0 {
		return ErrChance
	}
	return nil
}

// PutService implements lb.Maps.
func (f Failing) PutService(id lb.ID, s lb.Service) error {
	return inTurn(f.luck, func() error { return f.Maps.PutService(id, s) })
}

// DeleteService implements lb.Maps.
func (f Failing) DeleteService(id lb.ID) error {
	return inTurn(f.luck, func() error { return f.Maps.DeleteService(id) })
}

// PutFrontend implements lb.Maps.
func (f Failing) PutFrontend(fr lb.Frontend, e lb.Entry) error {
	return inTurn(f.luck, func() error { return f.Maps.PutFrontend(fr, e) })
}

// DeleteFrontend implements lb.Maps.
func (f Failing) DeleteFrontend(fr lb.Frontend) error {
	return inTurn(f.luck, func() error { return f.Maps.DeleteFrontend(fr) })
}

// inTurn calls one after the other until one fails.
func inTurn(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
