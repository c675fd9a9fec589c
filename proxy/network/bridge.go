package network

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// forward has the kernel pass on packets of the families that pods have.
func forward(ranges []netip.Prefix) error {
	var errs []error
	for _, f := range []struct {
		path string
		is6  bool
	}{
		{"/proc/sys/net/ipv4/ip_forward", false},
		{"/proc/sys/net/ipv6/conf/all/forwarding", true},
	} {
		if !slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Addr().Is6() == f.is6 }) {
			continue
		}
		// Where it cannot be written it may be right all the same.
		if have, err := os.ReadFile(f.path); err == nil && bytes.Equal(bytes.TrimSpace(have), []byte("1")) {
			continue
		}
		if err := os.WriteFile(f.path, []byte("1"), 0o644); err != nil {
			errs = append(errs, fmt.Errorf("forward packets: %w", err))
		}
	}
	return errors.Join(errs...)
}

// mtu is that of the interface that leads to the other nodes, 0 where there
// is none with an address of the node.
func (n *Network) mtu(node Node) (int, error) {
	addrs, err := n.links.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return 0, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok || !slices.Contains(node.Addresses, ip.Unmap()) {
			continue
		}
		link, err := n.links.LinkByIndex(a.LinkIndex)
		if err != nil {
			return 0, fmt.Errorf("look at interface %d: %w", a.LinkIndex, err)
		}
		if link.Attrs().Flags&net.FlagLoopback != 0 {
			return 0, nil
		}
		return link.Attrs().MTU, nil
	}
	return 0, nil
}

// gateways are the bridge's addresses, which the plugin would give it with
// the first pod: the first ones of the ranges.
func gateways(ranges []netip.Prefix) (out []netip.Prefix) {
	for _, r := range ranges {
		out = append(out, netip.PrefixFrom(r.Addr().Next(), r.Bits()))
	}
	return out
}

// setBridge makes the bridge before the first pod comes, so that what hangs
// on it is in place by then. Its hardware address is its own: that of a bridge
// which takes one of its ports' would change as pods come and go.
func (n *Network) setBridge(ranges []netip.Prefix, mtu int) error {
	link, err := n.links.LinkByName(n.cfg.Bridge)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.HardwareAddr = n.cfg.Bridge, mtu, hardware(ranges[0])
		if err := n.links.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return fmt.Errorf("make bridge %s: %w", n.cfg.Bridge, err)
		}
		link, err = n.links.LinkByName(n.cfg.Bridge)
	}
	if err != nil {
		return fmt.Errorf("look at bridge %s: %w", n.cfg.Bridge, err)
	}
	if link.Type() != "bridge" {
		return fmt.Errorf("interface %s is not a bridge but a %s", n.cfg.Bridge, link.Type())
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		if err := n.links.LinkSetUp(link); err != nil {
			return fmt.Errorf("bring bridge %s up: %w", n.cfg.Bridge, err)
		}
	}
	return n.setGateways(link, gateways(ranges))
}

// setGateways gives the bridge these addresses, and takes away others that it
// had from earlier ranges.
func (n *Network) setGateways(link netlink.Link, want []netip.Prefix) error {
	addrs, err := n.links.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", n.cfg.Bridge, err)
	}
	var errs []error
	have := map[netip.Prefix]bool{}
	for _, a := range addrs {
		p, ok := prefixOf(a.IPNet)
		if have[p] = true; !ok || !p.Addr().IsGlobalUnicast() || slices.Contains(want, p) {
			continue
		}
		errs = append(errs, n.links.AddrDel(link, &a))
	}
	for _, p := range want {
		if have[p] {
			continue
		}
		a := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		errs = append(errs, n.links.AddrReplace(link, a))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("set addresses of %s: %w", n.cfg.Bridge, err)
	}
	return nil
}

// hardware is an address that no maker of interfaces gives.
func hardware(r netip.Prefix) net.HardwareAddr {
	ip := r.Addr().Next().As16()
	return append(net.HardwareAddr{0x0a, 0x58}, ip[12:]...)
}

func (n *Network) removeBridge() error {
	link, err := n.links.LinkByName(n.cfg.Bridge)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err == nil && link.Type() == "bridge" {
		err = n.links.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("remove bridge %s: %w", n.cfg.Bridge, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	ip, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(ip.Unmap(), bits), ok
}
