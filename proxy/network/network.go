// Package network makes the network that the pods of a node are on, and its
// ways to those of the other nodes.
//
// Pods hang on a bridge, where the plugins of the container runtime put them:
// this package writes their configuration. Packets to pods of other nodes are
// routed there, which takes nodes that reach one another directly, and packets
// that leave the cluster get the node's address. What services are is for
// packages lb and datapath.
package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// DefaultBridge is the pods' bridge unless another name is given.
const DefaultBridge = "knarr0"

// Config says where a node's network is to be.
type Config struct {
	Conf   string         // directory of the runtime's network configuration
	IPAM   string         // directory in which addresses given to pods are noted; it is ours alone
	Bridge string         // interface, DefaultBridge where empty; the table of rules has the same name
	Ranges []netip.Prefix // of the cluster's pods, those of other nodes may be left out
}

// A Node is what the network depends on of one node.
type Node struct {
	Name      string
	Addresses []netip.Addr   // internal ones
	Ranges    []netip.Prefix // of its pods
}

// Describe returns what matters of n. What cannot be read is left out.
func Describe(n *corev1.Node) Node {
	out := Node{Name: n.Name}
	for _, a := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP {
			out.Addresses = append(out.Addresses, ip.Unmap())
		}
	}
	ranges := n.Spec.PodCIDRs
	if len(ranges) == 0 && n.Spec.PodCIDR != "" {
		ranges = []string{n.Spec.PodCIDR}
	}
	for _, text := range ranges {
		if p, err := netip.ParsePrefix(text); err == nil {
			out.Ranges = append(out.Ranges, p.Masked())
		}
	}
	return out
}

// A Network is the network of one node. Its methods act on the network
// namespace of the thread that opened it, and must be called on that thread
// where it is not the process's own.
type Network struct {
	cfg   Config
	links *netlink.Handle
	rules *nftables.Conn
	made  firewall // the rules as they stand, empty where that is not known

	routes map[netip.Prefix]bool // where routes were made to
}

// Open changes nothing yet.
func Open(cfg Config) (*Network, error) {
	cfg.Bridge = cmp.Or(cfg.Bridge, DefaultBridge)
	links, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	rules, err := nftables.New(nftables.AsLasting())
	if err != nil {
		links.Close()
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return &Network{cfg: cfg, links: links, rules: rules, routes: map[netip.Prefix]bool{}}, nil
}

// Close lets go of the network, which stays as it is.
func (n *Network) Close() error {
	n.links.Close()
	return n.rules.CloseLasting()
}

// Set makes the network what it must be for the node among the others. It
// does what it can: what fails of it does not keep the rest from working. A
// node without ranges for pods has no network yet.
func (n *Network) Set(node Node, others []Node) error {
	if len(node.Ranges) == 0 {
		return nil
	}
	// The configuration comes first, for a node is not ready without one.
	mtu, err := n.mtu(node)
	return errors.Join(err,
		n.writeConf(node.Ranges, mtu),
		forward(node.Ranges),
		n.setBridge(node.Ranges, mtu),
		n.setFirewall(fence(n.cfg.Ranges, node, others)),
		n.setRoutes(Routes(node, others)),
	)
}

// setFirewall puts f into force, unless it is.
func (n *Network) setFirewall(f firewall) error {
	if reflect.DeepEqual(f, n.made) {
		return nil
	}
	if err := n.install(f); err != nil {
		return err
	}
	n.made = f
	return nil
}

// Remove takes away all that a Network makes. It is no error if there is
// nothing. That packets are forwarded stays as it is: others may rely on it.
func Remove(ctx context.Context, cfg Config) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n, err := Open(cfg)
	if err != nil {
		return err
	}
	var errs []error
	if err := os.Remove(n.confPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, fmt.Errorf("remove network configuration: %w", err))
	}
	if cfg.IPAM != "" {
		errs = append(errs, os.RemoveAll(filepath.Clean(cfg.IPAM)))
	}
	errs = append(errs, n.setRoutes(nil), n.removeBridge(), n.uninstall(), n.Close())
	return errors.Join(errs...)
}
