package run

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/knarr-dev/knarr/proxy/datapath"
)

// An iface is an interface of the node.
type iface struct {
	index              int
	name               string
	up, loop, ethernet bool
	addrs              []netip.Addr
}

// A host is the node's interfaces, as the kernel has them.
type host struct {
	links  *netlink.Handle
	events *nl.NetlinkSocket
	news   chan struct{}
}

func openHost() (*host, error) {
	links, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	events, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
	if err != nil {
		links.Close()
		return nil, fmt.Errorf("follow interfaces: %w", err)
	}
	return &host{links: links, events: events, news: make(chan struct{}, 1)}, nil
}

func (h *host) close() {
	h.events.Close()
	h.links.Close()
}

// watch passes on that something has changed, until the host is closed. What
// it was is read anew, so that no message needs to be understood or kept.
func (h *host) watch() {
	for {
		if _, _, err := h.events.Receive(); errors.Is(err, os.ErrClosed) {
			return
		}
		select {
		case h.news <- struct{}{}:
		default:
		}
	}
}

func (h *host) changed() <-chan struct{} { return h.news }

func (h *host) look() ([]iface, error) {
	links, err := h.links.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	addrs, err := h.links.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	at := map[int][]netip.Addr{}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			at[a.LinkIndex] = append(at[a.LinkIndex], ip.Unmap())
		}
	}
	out := make([]iface, 0, len(links))
	for _, l := range links {
		a := l.Attrs()
		out = append(out, iface{
			index: a.Index, name: a.Name, addrs: at[a.Index], ethernet: a.EncapType == "ether",
			up: a.Flags&net.FlagUp != 0, loop: a.Flags&net.FlagLoopback != 0,
		})
	}
	return out, nil
}

// attachable picks the interfaces that packets for services come by: that of
// the pods, and all others where the node has an address. Of several addresses
// the nodes know each other by one of own.
func attachable(all []iface, bridge string, own []netip.Addr) (out []datapath.Interface) {
	first := func(addrs []netip.Addr, is4 bool) (best netip.Addr) {
		for _, a := range addrs {
			if a.Is4() != is4 || !a.IsGlobalUnicast() {
				continue
			}
			if slices.Contains(own, a) {
				return a
			}
			if !best.IsValid() {
				best = a
			}
		}
		return best
	}
	for _, i := range all {
		d := datapath.Interface{
			Index: i.index, V4: first(i.addrs, true), V6: first(i.addrs, false),
			Inside: i.name == bridge, Ethernet: i.ethernet,
		}
		if i.up && !i.loop && (d.Inside || d.V4.IsValid() || d.V6.IsValid()) {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b datapath.Interface) int { return a.Index - b.Index })
	return out
}

// nodeAddresses are all addresses of the node, and whether node ports are
// open there.
func nodeAddresses(all []iface, open func(netip.Addr) bool) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, i := range all {
		for _, a := range i.addrs {
			if !a.IsLinkLocalUnicast() {
				out[a] = open(a)
			}
		}
	}
	return out
}

// open tells whether node ports are open at an address of the node.
func (l *loop) open(a netip.Addr) bool {
	if l.Primary {
		return slices.Contains(l.node.Addresses, a)
	}
	return len(l.NodePorts) == 0 || slices.ContainsFunc(l.NodePorts, func(p netip.Prefix) bool { return p.Contains(a) })
}

// syncLinks follows the interfaces, once the programs have something to find.
func (l *loop) syncLinks(context.Context) error {
	if l.state == nil {
		return nil
	}
	all, err := l.host.look()
	if err != nil {
		return err
	}
	if addrs := nodeAddresses(all, l.open); !maps.Equal(addrs, l.addresses) {
		if err := l.plane.SetAddresses(addrs); err != nil {
			return err
		}
		l.addresses = addrs
	}
	if ifs := attachable(all, l.Network.Bridge, l.node.Addresses); !slices.Equal(ifs, l.interfaces) {
		if err := l.plane.SetInterfaces(ifs); err != nil {
			return err
		}
		l.interfaces = ifs
	}
	return nil
}
