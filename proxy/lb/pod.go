package lb

import (
	"net/netip"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// Pods plans the host ports of a pod on this node.
func Pods(pod *corev1.Pod) Plan {
	plan := Plan{Created: pod.CreationTimestamp.Time}
	if pod.Spec.HostNetwork || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return plan
	}
	for _, p := range ports(pod) {
		for _, ip := range pod.Status.PodIPs {
			addr, err := netip.ParseAddr(ip.IP)
			if err != nil || p.HostPort == 0 {
				continue
			}
			if c, ok := hostPort(p, addr.Unmap()); ok {
				plan.Claims = append(plan.Claims, c)
			}
		}
	}
	return plan
}

// ports are those of the containers that run as long as the pod does.
func ports(pod *corev1.Pod) (out []corev1.ContainerPort) {
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			out = append(out, c.Ports...)
		}
	}
	for _, c := range pod.Spec.Containers {
		out = append(out, c.Ports...)
	}
	return out
}

// hostPort claims p for the pod's address, where it is of the family of the
// host address asked for.
func hostPort(p corev1.ContainerPort, pod netip.Addr) (Claim, bool) {
	host := netip.IPv4Unspecified()
	if pod.Is6() {
		host = netip.IPv6Unspecified()
	}
	if p.HostIP != "" {
		asked, err := netip.ParseAddr(p.HostIP)
		if err != nil || asked.Is4() != pod.Is4() {
			return Claim{}, false
		}
		host = asked
	}
	proto, ok := protos[p.Protocol]
	if !ok {
		proto = TCP
	}
	f := Frontend{netip.AddrPortFrom(host, uint16(p.HostPort)), proto}
	backend := Backend{netip.AddrPortFrom(pod, uint16(p.ContainerPort)), true}
	return Claim{
		Name:      proto.String() + "/" + host.String() + "/" + strconv.Itoa(int(p.HostPort)),
		Proto:     proto,
		Frontends: map[Frontend]Flags{f: 0},
		Service:   Service{Backends: []Backend{backend}, Cluster: 1},
	}, true
}
