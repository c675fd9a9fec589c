package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A firewall says which packets leave with an address of the node: those from
// pods of the node to anywhere but these places.
type firewall struct {
	pods, inside []span
}

// A span is the addresses from first to last.
type span struct{ first, last netip.Addr }

// Packets to many are for who is near, which masquerading would not change.
var multicast = []netip.Prefix{netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("ff00::/8")}

// fence puts inside what pods know by its own address and are known to: all
// pods, and the nodes.
func fence(cluster []netip.Prefix, node Node, others []Node) firewall {
	inside := slices.Concat(multicast, cluster)
	for _, n := range append(slices.Clone(others), node) {
		inside = append(inside, n.Ranges...)
		for _, a := range n.Addresses {
			inside = append(inside, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return firewall{pods: spans(node.Ranges), inside: spans(inside)}
}

// spans are the addresses of the prefixes, in order and without overlap.
func spans(ps []netip.Prefix) (out []span) {
	ps = slices.Clone(ps)
	slices.SortFunc(ps, netip.Prefix.Compare)
	for _, p := range ps {
		s := span{p.Masked().Addr(), last(p)}
		if n := len(out); n > 0 && out[n-1].first.Is4() == s.first.Is4() &&
			(s.first.Compare(out[n-1].last) <= 0 || s.first == out[n-1].last.Next()) {
			if s.last.Compare(out[n-1].last) > 0 {
				out[n-1].last = s.last
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

// last is the highest address of p.
func last(p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for i := p.Bits(); i < len(raw)*8; i++ {
		raw[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(raw)
	return a
}

func of(all []span, is4 bool) (out []span) {
	for _, s := range all {
		if s.first.Is4() == is4 {
			out = append(out, s)
		}
	}
	return out
}

func (n *Network) table() *nftables.Table {
	return &nftables.Table{Name: n.cfg.Bridge, Family: nftables.TableFamilyINet}
}

// install replaces the table at one stroke, so that no packet finds half of it.
func (n *Network) install(f firewall) error {
	t := n.rules.AddTable(n.table()) // for there must be one to delete
	n.rules.DelTable(t)
	t = n.rules.AddTable(n.table())
	chain := n.rules.AddChain(&nftables.Chain{
		Name: "postrouting", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	for _, v := range []family{v4, v6} {
		if pods := of(f.pods, v.proto == unix.NFPROTO_IPV4); len(pods) > 0 {
			if err := n.masquerade(chain, v, pods, of(f.inside, v.proto == unix.NFPROTO_IPV4)); err != nil {
				return err
			}
		}
	}
	if err := n.rules.Flush(); err != nil {
		return fmt.Errorf("set rules of table %s: %w", t.Name, err)
	}
	return nil
}

// A family is how packets of one look.
type family struct {
	name     string
	proto    byte
	key      nftables.SetDatatype
	src, dst uint32 // offsets of the addresses
	size     uint32
}

var (
	v4 = family{"4", unix.NFPROTO_IPV4, nftables.TypeIPAddr, 12, 16, 4}
	v6 = family{"6", unix.NFPROTO_IPV6, nftables.TypeIP6Addr, 8, 24, 16}
)

// masquerade adds the rule for one family to the chain.
func (n *Network) masquerade(chain *nftables.Chain, f family, pods, inside []span) error {
	from := &nftables.Set{Table: chain.Table, Name: "pods" + f.name, KeyType: f.key, Interval: true}
	to := &nftables.Set{Table: chain.Table, Name: "inside" + f.name, KeyType: f.key, Interval: true}
	if err := errors.Join(n.rules.AddSet(from, elements(pods)), n.rules.AddSet(to, elements(inside))); err != nil {
		return fmt.Errorf("add sets of addresses: %w", err)
	}
	n.rules.AddRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f.proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.src, Len: f.size},
		&expr.Lookup{SourceRegister: 1, SetName: from.Name, SetID: from.ID},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.dst, Len: f.size},
		&expr.Lookup{SourceRegister: 1, SetName: to.Name, SetID: to.ID, Invert: true},
		&expr.Masq{FullyRandom: true},
	}})
	return nil
}

// elements are how a set has spans: where each begins, and where the next
// thing does.
func elements(all []span) (out []nftables.SetElement) {
	for _, s := range all {
		out = append(out, nftables.SetElement{Key: s.first.AsSlice()})
		if end := s.last.Next(); end.IsValid() {
			out = append(out, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}

// uninstall takes the table away, if there is one.
func (n *Network) uninstall() error {
	t := n.rules.AddTable(n.table())
	n.rules.DelTable(t)
	if err := n.rules.Flush(); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("delete table %s: %w", n.cfg.Bridge, err)
	}
	return nil
}
