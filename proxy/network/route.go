package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routeProtocol marks our routes, the only ones that are touched. Nobody else
// is known to use the number.
const routeProtocol = 0x6b

// A Route leads to the pods of another node.
type Route struct {
	To  netip.Prefix
	Via netip.Addr
}

// Routes are those that the node needs to reach the pods of the others: each
// range by the first address of its node that is of the same family.
func Routes(node Node, others []Node) (out []Route) {
	for _, o := range others {
		if o.Name == node.Name {
			continue
		}
		for _, r := range o.Ranges {
			i := slices.IndexFunc(o.Addresses, func(a netip.Addr) bool { return a.Is4() == r.Addr().Is4() })
			if i < 0 || slices.Contains(node.Ranges, r) {
				continue
			}
			out = append(out, Route{r, o.Addresses[i]})
		}
	}
	slices.SortFunc(out, func(a, b Route) int { return a.To.Compare(b.To) })
	// Of two nodes with one range, which one must be going, either will do.
	return slices.CompactFunc(out, func(a, b Route) bool { return a.To == b.To })
}

// setRoutes makes want all the routes that are ours: to what this cluster has
// for pods, for another cluster on this machine may have its own.
func (n *Network) setRoutes(want []Route) error {
	mine := &netlink.Route{Protocol: routeProtocol, Table: unix.RT_TABLE_MAIN}
	have, err := n.links.RouteListFiltered(netlink.FAMILY_ALL, mine, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	var errs []error
	right := map[Route]bool{}
	for _, r := range have {
		to, _ := prefixOf(r.Dst)
		via, _ := netip.AddrFromSlice(r.Gw)
		ours := n.routes[to] || slices.ContainsFunc(n.cfg.Ranges, func(p netip.Prefix) bool { return p.Overlaps(to) })
		if is := (Route{to, via.Unmap()}); slices.Contains(want, is) {
			right[is] = true
			continue
		}
		if !ours {
			continue
		}
		if err := n.links.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("delete route to %v: %w", to, err))
		}
	}
	for _, w := range want {
		n.routes[w.To] = true
		if right[w] {
			continue
		}
		r := &netlink.Route{Dst: ipNet(w.To), Gw: w.Via.AsSlice(), Protocol: routeProtocol, Table: unix.RT_TABLE_MAIN}
		if err := n.links.RouteReplace(r); err != nil {
			errs = append(errs, fmt.Errorf("add route to %v by %v: %w", w.To, w.Via, err))
		}
	}
	return errors.Join(errs...)
}
