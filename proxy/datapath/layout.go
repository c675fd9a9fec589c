package datapath

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"strings"

	"github.com/knarr-dev/knarr/proxy/lb"
)

// maxBackends is the most that a range can count.
const maxBackends = 1<<16 - 1

// rangeOf is the word that C takes apart with FIRST and COUNT.
func rangeOf(first, n int, version uint64) uint64 {
	return uint64(first) | uint64(n)<<24 | version<<40
}

func start(r uint64) int      { return int(r & 0xffffff) }
func count(r uint64) int      { return int(r >> 24 & 0xffff) }
func version(r uint64) uint64 { return r >> 40 }

// wire turns a number between the machine's order and the network's. The
// programs are built for little-endian machines only.
func wire(port uint16) uint16 { return bits.ReverseBytes16(port) }

func addressOf(a netip.Addr) (out socketAddress) {
	raw := a.As16()
	for i := range out.Word {
		out.Word[i] = binary.LittleEndian.Uint32(raw[4*i:])
	}
	return out
}

func addrOf(a socketAddress) netip.Addr {
	var raw [16]byte
	for i, w := range a.Word {
		binary.LittleEndian.PutUint32(raw[4*i:], w)
	}
	return netip.AddrFrom16(raw).Unmap()
}

func keyOf(f lb.Frontend) socketFrontend {
	return socketFrontend{Addr: addressOf(f.Addr.Addr()), Port: wire(f.Addr.Port()), Proto: uint8(f.Proto)}
}

func frontendOf(k socketFrontend) lb.Frontend {
	return lb.Frontend{Addr: netip.AddrPortFrom(addrOf(k.Addr), wire(k.Port)), Proto: lb.Proto(k.Proto)}
}

func slotOf(b lb.Backend) socketBackend {
	out := socketBackend{Addr: addressOf(b.Addr.Addr()), Port: wire(b.Addr.Port())}
	if b.Local {
		out.Flags = socketBackendFlagsBACKEND_LOCAL
	}
	return out
}

func backendOf(b socketBackend) lb.Backend {
	return lb.Backend{
		Addr:  netip.AddrPortFrom(addrOf(b.Addr), wire(b.Port)),
		Local: b.Flags&socketBackendFlagsBACKEND_LOCAL != 0,
	}
}

// sourceOf counts the bits of the service, and the 96 that come before an
// IPv4 address mapped into IPv6.
func sourceOf(service uint32, p netip.Prefix) socketSource {
	n := 32 + p.Bits()
	if p.Addr().Is4() {
		n += 96
	}
	return socketSource{Bits: uint32(n), Service: service, Addr: addressOf(p.Addr())}
}

func prefixOf(s socketSource) netip.Prefix {
	a := addrOf(s.Addr)
	n := int(s.Bits) - 32
	if a.Is4() {
		n -= 96
	}
	return netip.PrefixFrom(a, n)
}

// comparePrefix is the order in which lb has sources.
func comparePrefix(a, b netip.Prefix) int { return strings.Compare(a.String(), b.String()) }
