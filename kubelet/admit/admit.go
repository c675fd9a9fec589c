// Package admit decides whether the node takes a pod that it was given. It
// checks again what a scheduler has checked, since pods may also come past it,
// and by now others may be here.
package admit

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/knarr-dev/knarr/kubelet"
)

// A Gate decides on pods by what the node is.
type Gate struct {
	// Node is the node's object; while it is nil what depends on it is not checked.
	Node func() *corev1.Node
	// Sysctls are kernel parameters that pods may set besides the safe ones; one
	// that ends in * stands for all that begin so.
	Sysctls []string
}

// Hook is the gate's part in a pod's life.
func (g Gate) Hook() kubelet.Hook { return kubelet.Hook{Name: "admit", Admit: g.admit} }

func (g Gate) admit(p *corev1.Pod, others []*corev1.Pod) error {
	if err := g.sysctls(p); err != nil {
		return err
	}
	if os := p.Spec.OS; os != nil && os.Name != corev1.Linux {
		return &kubelet.Refusal{Reason: "PodOSNotSupported", Message: "Failed to admit pod as the OS field doesn't match node OS"}
	}
	var node *corev1.Node
	if g.Node != nil {
		node = g.Node()
	}
	if node == nil {
		return nil
	}
	return Check(p, others, node)
}

// Check tells whether a pod fits a node beside others, with a *kubelet.Refusal
// where it does not. Of several reasons it gives the first.
func Check(p *corev1.Pod, others []*corev1.Pod, node *corev1.Node) error {
	if want, ok := p.Labels[corev1.LabelOSStable]; ok && want != string(corev1.Linux) {
		return &kubelet.Refusal{Reason: "PodOSSelectorNodeLabelDoesNotMatch", Message: "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"}
	}
	if err := room(p, others, node.Status.Allocatable); err != nil {
		return err
	}
	predicate := func(name, why string) error {
		return &kubelet.Refusal{Reason: name, Message: "Predicate " + name + " failed: " + why}
	}
	if ok, _ := nodeaffinity.GetRequiredNodeAffinity(p).Match(node); !ok { // what cannot be understood does not match
		return predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")
	}
	if p.Spec.NodeName != "" && p.Spec.NodeName != node.Name {
		return predicate("NodeName", "node(s) didn't match the requested node name")
	}
	mine := hostPorts(p)
	for _, o := range others {
		for _, port := range hostPorts(o) {
			if slices.ContainsFunc(mine, func(m corev1.ContainerPort) bool { return clash(m, port) }) {
				return predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports")
			}
		}
	}
	return nil
}

// room tells whether what the pod asks for is left.
func room(p *corev1.Pod, others []*corev1.Pod, all corev1.ResourceList) error {
	lacks := func(name corev1.ResourceName, asked, used, have int64) error {
		return &kubelet.Refusal{
			Reason:  "OutOf" + string(name),
			Message: fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, asked, used, have),
		}
	}
	if have := all.Pods().Value(); int64(len(others))+1 > have {
		return lacks(corev1.ResourcePods, 1, int64(len(others)), have)
	}
	wants := resource.PodRequests(p, resource.PodResourcesOptions{})
	used := map[corev1.ResourceName]int64{}
	for _, o := range others {
		for name, q := range resource.PodRequests(o, resource.PodResourcesOptions{UseStatusResources: true}) {
			used[name] += units(name, q.MilliValue(), q.Value())
		}
	}
	for _, name := range order(wants) {
		q := wants[name]
		asked := units(name, q.MilliValue(), q.Value())
		have, known := all[name]
		if asked == 0 || !known && strings.Contains(string(name), "/") {
			continue // as upstream: what this node has never heard of is the cluster's
		}
		if n := units(name, have.MilliValue(), have.Value()); asked > n-used[name] {
			return lacks(name, asked, used[name], n)
		}
	}
	return nil
}

func units(name corev1.ResourceName, milli, whole int64) int64 {
	if name == corev1.ResourceCPU {
		return milli
	}
	return whole
}

// order lists the names of resources, those that every node has first.
func order(list corev1.ResourceList) []corev1.ResourceName {
	names := []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage}
	var more []corev1.ResourceName
	for name := range list {
		if !slices.Contains(names, name) {
			more = append(more, name)
		}
	}
	slices.Sort(more)
	return append(names, more...)
}

func hostPorts(p *corev1.Pod) (list []corev1.ContainerPort) {
	for _, c := range slices.Concat(p.Spec.Containers, sidecars(p)) {
		for _, port := range c.Ports {
			if port.HostPort > 0 {
				list = append(list, port)
			}
		}
	}
	return list
}

func sidecars(p *corev1.Pod) (list []corev1.Container) {
	for _, c := range p.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			list = append(list, c)
		}
	}
	return list
}

// clash tells whether two ports of the host are one: the same number and
// protocol, and an address in common.
func clash(a, b corev1.ContainerPort) bool {
	protocol := func(p corev1.ContainerPort) corev1.Protocol {
		if p.Protocol == "" {
			return corev1.ProtocolTCP
		}
		return p.Protocol
	}
	every := func(ip string) bool { return ip == "" || ip == "0.0.0.0" || ip == "::" }
	return a.HostPort == b.HostPort && protocol(a) == protocol(b) && (a.HostIP == b.HostIP || every(a.HostIP) || every(b.HostIP))
}

// safe are the kernel parameters that are a pod's own and do no harm to others.
var safe = []string{
	"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
	"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout",
	"net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
}

// sysctls tells whether the pod may set the kernel parameters that it sets. In
// a namespace of the host's they would not be its own.
func (g Gate) sysctls(p *corev1.Pod) error {
	if p.Spec.SecurityContext == nil {
		return nil
	}
	for _, s := range p.Spec.SecurityContext.Sysctls {
		name := s.Name
		if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '/' {
			name = strings.NewReplacer("/", ".", ".", "/").Replace(name)
		}
		why := ""
		switch {
		case !slices.ContainsFunc(slices.Concat(safe, g.Sysctls), func(may string) bool { return matches(may, name) }):
			why = fmt.Sprintf("forbidden sysctl: %q not allowlisted", s.Name)
		case strings.HasPrefix(name, "net.") && p.Spec.HostNetwork:
			why = fmt.Sprintf("forbidden sysctl: %q not allowed with host net enabled", s.Name)
		case !strings.HasPrefix(name, "net.") && p.Spec.HostIPC:
			why = fmt.Sprintf("forbidden sysctl: %q not allowed with host ipc enabled", s.Name)
		}
		if why != "" {
			return &kubelet.Refusal{Reason: "SysctlForbidden", Message: why}
		}
	}
	return nil
}

func matches(pattern, name string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return pattern == name
}
