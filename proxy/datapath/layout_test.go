package datapath

import (
	"net/netip"
	"testing"

	"github.com/knarr-dev/knarr/proxy/lb"
)

// FuzzLayout: what is written in the layout of C reads as it was.
func FuzzLayout(f *testing.F) {
	f.Add([]byte{10, 0, 0, 1}, uint16(80), uint8(6), true, uint8(24))
	f.Add(netip.MustParseAddr("2001:db8::1").AsSlice(), uint16(53), uint8(17), false, uint8(64))
	f.Add([]byte{0, 0, 0, 0}, uint16(30080), uint8(6), true, uint8(0))
	f.Add(netip.IPv6Unspecified().AsSlice(), uint16(30080), uint8(6), true, uint8(128))
	f.Fuzz(func(t *testing.T, raw []byte, port uint16, proto uint8, local bool, bits uint8) {
		addr, ok := netip.AddrFromSlice(raw)
		if !ok || addr.Is4In6() {
			t.Skip()
		}
		front := lb.Frontend{Addr: netip.AddrPortFrom(addr, port), Proto: lb.Proto(proto)}
		if got := frontendOf(keyOf(front)); got != front {
			t.Errorf("%v became %v", front, got)
		}
		back := lb.Backend{Addr: front.Addr, Local: local}
		if got := backendOf(slotOf(back)); got != back {
			t.Errorf("%v became %v", back, got)
		}
		if p := netip.PrefixFrom(addr, int(bits)).Masked(); p.IsValid() {
			if got := prefixOf(sourceOf(7, p)); got != p {
				t.Errorf("%v became %v", p, got)
			}
		}
	})
}

func TestRange(t *testing.T) {
	for _, c := range []struct {
		first, n int
		version  uint64
	}{{0, 0, 0}, {1, 1, 1}, {1<<24 - 1, maxBackends, 1<<24 - 1}} {
		r := rangeOf(c.first, c.n, c.version)
		if start(r) != c.first || count(r) != c.n || version(r) != c.version {
			t.Errorf("%v became %d %d %d", c, start(r), count(r), version(r))
		}
	}
	// The version starts anew rather than reaching into the rest.
	if r := rangeOf(3, 4, 1<<24); start(r) != 3 || count(r) != 4 || version(r) != 0 {
		t.Errorf("overflow became %d %d %d", start(r), count(r), version(r))
	}
}

// TestFlags: lb and C number the flags alike.
func TestFlags(t *testing.T) {
	for lbFlag, c := range map[lb.Flags]socketEntryFlags{
		lb.LocalInside: socketEntryFlagsLOCAL_INSIDE, lb.LocalOutside: socketEntryFlagsLOCAL_OUTSIDE,
		lb.NodePort: socketEntryFlagsNODE_PORT, lb.Filtered: socketEntryFlagsFILTERED, lb.NodeAllowed: socketEntryFlagsNODE_ALLOWED,
	} {
		if uint32(lbFlag) != uint32(c) {
			t.Errorf("lb has %d where C has %d", lbFlag, c)
		}
	}
}

func TestAllocator(t *testing.T) {
	var a allocator
	a.init(256)
	take := func(n, want int) {
		t.Helper()
		if got, ok := a.take(n); got != want || !ok {
			t.Errorf("took %d at %d, %v; want %d", n, got, ok, want)
		}
	}
	take(10, 0)
	take(100, 10)
	a.set(10, 100, false)
	take(10, 110)  // not where it was free a moment ago
	take(136, 120) // to the end
	take(100, 10)  // and from the beginning again
	if got, ok := a.take(1); ok {
		t.Errorf("took 1 at %d, though all are used", got)
	}
	a.set(63, 2, false)
	take(2, 63) // over the border of two words
	take(0, 0)
}
