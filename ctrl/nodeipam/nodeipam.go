// Package nodeipam gives each node a part of the cluster's address ranges for
// its pods.
package nodeipam

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/ctrl"
)

// A Range is addresses to be cut into parts of Bits each.
type Range struct {
	Prefix netip.Prefix
	Bits   int
}

// New is the controller for one range of each family. Parts that overlap one
// of taken, as the service addresses are, it does not give away.
func New(ranges []Range, taken []netip.Prefix) ctrl.Erased {
	return ctrl.Overseer[input]{
		Name:    "node-ipam-controller",
		Account: "node-controller",
		Source:  "cidrAllocator",
		Reads:   []ctrl.Read{ctrl.Watch(wake)},
		Writes:  []ctrl.Write{ctrl.May(&corev1.Node{}, ctrl.Patch)},
		Gather: func(w ctrl.World) input {
			nodes := ctrl.All[*corev1.Node](w)
			slices.SortFunc(nodes, func(a, b *corev1.Node) int {
				return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
			})
			told, _ := w.Memo.(map[types.UID]bool)
			return input{nodes, ranges, taken, told}
		},
		Decide: decide,
	}.Erase()
}

// wake wakes for a node without a part, and for one that gives its part back.
func wake(_ ctrl.World, _, n *corev1.Node) []ctrl.Key {
	if n != nil && len(n.Spec.PodCIDRs) > 0 {
		return nil
	}
	return []ctrl.Key{{}}
}

type input struct {
	nodes  []*corev1.Node // oldest first
	ranges []Range
	taken  []netip.Prefix
	told   map[types.UID]bool // the nodes that were told that there is nothing left
}

func decide(in input) ctrl.Plan {
	var do []ctrl.Action
	used := map[netip.Prefix]bool{}
	for _, n := range in.nodes {
		for _, c := range n.Spec.PodCIDRs {
			if p, err := netip.ParsePrefix(c); err == nil {
				used[p.Masked()] = true
			}
		}
	}
	told := map[types.UID]bool{}
	next := make([]netip.Prefix, len(in.ranges)) // where to go on looking
	for _, n := range in.nodes {
		if len(n.Spec.PodCIDRs) > 0 || n.DeletionTimestamp != nil {
			continue
		}
		var cidrs []string
		for i, r := range in.ranges {
			if !next[i].IsValid() {
				next[i] = netip.PrefixFrom(r.Prefix.Masked().Addr(), r.Bits)
			}
			p, ok := in.free(r, next[i], used)
			if !ok {
				break
			}
			next[i], used[p] = p, true
			cidrs = append(cidrs, p.String())
		}
		if len(cidrs) < len(in.ranges) {
			told[n.UID] = true
			if in.told[n.UID] {
				continue
			}
			do = append(do, ctrl.Complain(n, "CIDRNotAvailable: Node %s status is now: CIDRNotAvailable", n.Name))
			continue
		}
		patch := map[string]any{"spec": map[string]any{"podCIDR": cidrs[0], "podCIDRs": cidrs}, "metadata": map[string]any{"uid": n.UID}}
		do = append(do, ctrl.Action{Verb: ctrl.Patch, Obj: n, Patch: ctrl.JSON(patch)})
	}
	return ctrl.Plan{Do: do, Memo: told}
}

// free is the first part of r from p on that nobody has.
func (in input) free(r Range, p netip.Prefix, used map[netip.Prefix]bool) (netip.Prefix, bool) {
	for ; r.Prefix.Contains(p.Addr()); p = following(p) {
		if !used[p] && !slices.ContainsFunc(in.taken, p.Overlaps) {
			return p, true
		}
		if last := following(p); !last.IsValid() {
			break
		}
	}
	return netip.Prefix{}, false
}

// following is the part after p, the zero Prefix after the last address there is.
func following(p netip.Prefix) netip.Prefix {
	a := p.Addr().As16()
	shift := 128 - p.Bits()
	if p.Addr().Is4() {
		shift = 32 - p.Bits()
	}
	hi, lo := binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:])
	if shift >= 64 {
		hi += 1 << (shift - 64)
	} else if sum := lo + 1<<shift; sum < lo {
		hi, lo = hi+1, sum
	} else {
		lo = sum
	}
	binary.BigEndian.PutUint64(a[:8], hi)
	binary.BigEndian.PutUint64(a[8:], lo)
	next := netip.AddrFrom16(a)
	if p.Addr().Is4() {
		if next = next.Unmap(); !next.Is4() {
			return netip.Prefix{}
		}
	}
	if next.Less(p.Addr()) {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(next, p.Bits())
}
