package up

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// inside is the name of a node's interface in its own namespace.
const inside = "eth0"

// connect makes the network of a node: a bridge on this machine, and a cable
// from there into the namespace of a process. What is there already stays.
func (m *member) connect(pid int, host netip.Addr) error {
	bridge, err := m.cluster.bridge()
	if err != nil {
		return err
	}
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("open the node's network namespace: %w", err)
	}
	defer func() { _ = ns.Close() }() // only read from
	there, err := netlink.NewHandleAt(ns)
	if err != nil {
		return fmt.Errorf("open the node's network namespace: %w", err)
	}
	defer there.Close()
	end, err := there.LinkByName(inside)
	if missing(err) {
		end, err = m.plug(bridge, pid, there)
	}
	if err != nil {
		return fmt.Errorf("connect node %s: %w", m.Name, err)
	}
	if err := m.address(there, end, host); err != nil {
		return fmt.Errorf("connect node %s: %w", m.Name, err)
	}
	return nil
}

func missing(err error) bool {
	var none netlink.LinkNotFoundError
	return errors.As(err, &none)
}

// bridge is what all nodes of the cluster hang on, with the first address.
func (d *dir) bridge() (netlink.Link, error) {
	link, err := netlink.LinkByName(d.bridgeName())
	if missing(err) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = d.bridgeName()
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return nil, fmt.Errorf("make the bridge between nodes: %w", err)
		}
		link, err = netlink.LinkByName(d.bridgeName())
	}
	if err != nil {
		return nil, fmt.Errorf("find the bridge between nodes: %w", err)
	}
	all := netip.MustParsePrefix(nodeRange)
	first := &netlink.Addr{IPNet: &net.IPNet{IP: all.Addr().Next().AsSlice(), Mask: net.CIDRMask(all.Bits(), 32)}}
	if err := netlink.AddrReplace(link, first); err != nil {
		return nil, fmt.Errorf("give the bridge between nodes its address: %w", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("set the bridge between nodes up: %w", err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return nil, fmt.Errorf("let packets pass between nodes: %w", err)
	}
	return link, nil
}

// plug lays a cable from the bridge to the node. One that a crash has left
// with its other end gone is taken away first.
func (m *member) plug(bridge netlink.Link, pid int, there *netlink.Handle) (netlink.Link, error) {
	if old, err := netlink.LinkByName(m.id()); err == nil {
		if err := netlink.LinkDel(old); err != nil {
			return nil, err
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = m.id(), bridge.Attrs().Index
	cable := &netlink.Veth{LinkAttrs: attrs, PeerName: m.id() + "i", PeerNamespace: netlink.NsPid(pid)}
	if err := netlink.LinkAdd(cable); err != nil {
		return nil, err
	}
	near, err := netlink.LinkByName(m.id())
	if err != nil {
		return nil, err
	}
	if err := netlink.LinkSetUp(near); err != nil {
		return nil, err
	}
	end, err := there.LinkByName(m.id() + "i")
	if err != nil {
		return nil, err
	}
	return end, there.LinkSetName(end, inside)
}

// address gives the node's end its address, and the ways to this machine and,
// by it, to all others.
func (m *member) address(there *netlink.Handle, end netlink.Link, host netip.Addr) error {
	all := netip.MustParsePrefix(nodeRange)
	lo, err := there.LinkByName("lo")
	if err != nil {
		return err
	}
	own := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(m.Address).To4(), Mask: net.CIDRMask(all.Bits(), 32)}}
	machine := &net.IPNet{IP: host.AsSlice(), Mask: net.CIDRMask(host.BitLen(), host.BitLen())}
	for _, step := range []func() error{
		func() error { return there.LinkSetUp(lo) },
		func() error { return there.AddrReplace(end, own) },
		func() error { return there.LinkSetUp(end) },
		func() error {
			return there.RouteReplace(&netlink.Route{LinkIndex: end.Attrs().Index, Gw: all.Addr().Next().AsSlice()})
		},
		// So that it can be the next hop to the pods of this machine's node.
		func() error {
			return there.RouteReplace(&netlink.Route{LinkIndex: end.Attrs().Index, Dst: machine, Scope: netlink.SCOPE_LINK})
		},
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// isolate cuts the node off, or undoes that.
func (m *member) isolate(cut bool) error {
	near, err := netlink.LinkByName(m.id())
	if missing(err) {
		return fmt.Errorf("node %s does not run: `knarr node start %s` starts it", m.Name, m.Name)
	}
	if err == nil && cut {
		err = netlink.LinkSetDown(near)
	} else if err == nil {
		err = netlink.LinkSetUp(near)
	}
	if err != nil {
		return fmt.Errorf("cut node %s off: %w", m.Name, err)
	}
	return nil
}

// isolated tells whether the node is cut off.
func (m *member) isolated() bool {
	near, err := netlink.LinkByName(m.id())
	return err == nil && near.Attrs().RawFlags&unix.IFF_UP == 0
}

// disconnect takes the node's cable away.
func (m *member) disconnect() error {
	near, err := netlink.LinkByName(m.id())
	if missing(err) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(near)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) { // it goes with its namespace
		return fmt.Errorf("take the cable of node %s away: %w", m.Name, err)
	}
	return nil
}

// removeNodeNetwork takes the bridge between nodes away.
func (d *dir) removeNodeNetwork() error {
	link, err := netlink.LinkByName(d.bridgeName())
	if missing(err) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("take the bridge between nodes away: %w", err)
	}
	return nil
}
