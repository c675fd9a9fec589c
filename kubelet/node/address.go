package node

import (
	"fmt"
	"net"

	corev1 "k8s.io/api/core/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// Addresses is for Config.Addresses: the given addresses, which may be none,
// one, or one of each family, else the one that the hostname is or has, else
// the one from which the node reaches others.
func Addresses(hostname string, given []net.IP) func() ([]corev1.NodeAddress, error) {
	if len(given) == 0 {
		given = named(hostname)
	}
	return func() ([]corev1.NodeAddress, error) {
		ips := given
		if len(ips) == 0 {
			ip, err := utilnet.ChooseHostInterface()
			if err != nil {
				return nil, fmt.Errorf("choose an address: %w", err)
			}
			ips = []net.IP{ip}
		}
		var list []corev1.NodeAddress
		for _, ip := range ips {
			list = append(list, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip.String()})
		}
		return append(list, corev1.NodeAddress{Type: corev1.NodeHostName, Address: hostname}), nil
	}
}

// named is an address of the name that is one of this machine's, IPv4 first.
func named(hostname string) (best []net.IP) {
	if ip := net.ParseIP(hostname); ip != nil {
		return []net.IP{ip}
	}
	found, _ := net.LookupIP(hostname) // most names of machines have none
	ours, _ := net.InterfaceAddrs()
	for _, ip := range found {
		for _, a := range ours {
			n, ok := a.(*net.IPNet)
			if ok && n.IP.Equal(ip) && ip.IsGlobalUnicast() && (best == nil || ip.To4() != nil && best[0].To4() == nil) {
				best = []net.IP{ip}
			}
		}
	}
	return best
}
