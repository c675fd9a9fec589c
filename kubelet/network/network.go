// Package network gives pods their names: host name, hosts file, name servers,
// and the ports of the host that lead to them. The network itself, with the
// pod's address, is the runtime's and its plugins'.
package network

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-dev/knarr/kubelet"
)

// A Namer names pods. Domain is the cluster's; Servers are its name servers.
type Namer struct {
	Servers    []string
	Domain     string
	ResolvConf string // the host's; none where empty
	Root       string // of pods' directories
	Tell       kubelet.Tell
}

const (
	hostsPath  = "/etc/hosts"
	maxLabel   = 63
	maxMachine = 64 // bytes of the kernel's node name
)

// Hook is the names' part in a pod's life.
func (n *Namer) Hook() kubelet.Hook {
	return kubelet.Hook{Name: "network", Prepare: n.prepare, BeforeStart: n.mountHosts, Cleanup: n.cleanup}
}

func (n *Namer) prepare(_ context.Context, s *kubelet.Sandbox) error {
	dns, err := n.dns(s.Pod)
	if err != nil {
		return err
	}
	s.Config.DnsConfig = dns
	if !s.Pod.Spec.HostNetwork {
		if s.Config.Hostname, err = n.machine(s.Pod); err != nil {
			return err
		}
	}
	s.Config.PortMappings = ports(s.Pod)
	return nil
}

// names are a pod's host name and the domain that it is in, which is empty
// where the pod asks for none.
func (n *Namer) names(p *corev1.Pod) (host, domain string) {
	if p.Spec.HostnameOverride != nil {
		return short(*p.Spec.HostnameOverride), ""
	}
	host = p.Spec.Hostname
	if host == "" {
		host = p.Name
	}
	if p.Spec.Subdomain != "" {
		domain = p.Spec.Subdomain + "." + p.Namespace + ".svc." + n.Domain
	}
	return short(host), domain
}

func short(name string) string {
	if len(name) <= maxLabel {
		return name
	}
	return strings.TrimRight(name[:maxLabel], "-.")
}

// machine is the host name that the pod's kernel namespace gets.
func (n *Namer) machine(p *corev1.Pod) (string, error) {
	host, domain := n.names(p)
	if domain == "" || p.Spec.SetHostnameAsFQDN == nil || !*p.Spec.SetHostnameAsFQDN {
		return host, nil
	}
	full := host + "." + domain
	if len(full) > maxMachine {
		return "", fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (%d characters is the max, %d characters requested)", full, maxMachine, len(full))
	}
	return full, nil
}

// ports are the ports of the host that lead to the pod.
func ports(p *corev1.Pod) (list []*runtimeapi.PortMapping) {
	for _, c := range p.Spec.Containers {
		for _, port := range c.Ports {
			m := &runtimeapi.PortMapping{
				HostIp: port.HostIP, HostPort: port.HostPort, ContainerPort: port.ContainerPort,
				Protocol: runtimeapi.Protocol(runtimeapi.Protocol_value[string(port.Protocol)]),
			}
			if !slices.ContainsFunc(list, func(o *runtimeapi.PortMapping) bool { return o.String() == m.String() }) {
				list = append(list, m)
			}
		}
	}
	return list
}

func (n *Namer) hostsFile(uid types.UID) string {
	return filepath.Join(n.Root, "pods", string(uid), "etc-hosts")
}

// mountHosts gives a container the pod's hosts file, unless it brings its own.
func (n *Namer) mountHosts(_ context.Context, c *kubelet.Container) error {
	if slices.ContainsFunc(c.Spec.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == hostsPath }) {
		return nil
	}
	text, err := n.hosts(c.Pod)
	if err != nil || text == "" {
		return err
	}
	path := n.hostsFile(c.Pod.UID)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return fmt.Errorf("make hosts file: %w", err)
	}
	// Written in place: other containers of the pod have it mounted.
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("make hosts file: %w", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		return fmt.Errorf("make hosts file: %w", err)
	}
	c.Config.Mounts = append(c.Config.Mounts, &runtimeapi.Mount{ContainerPath: hostsPath, HostPath: path})
	return nil
}

// hosts is the text of the pod's hosts file; empty while it has no address.
func (n *Namer) hosts(p *corev1.Pod) (string, error) {
	var b strings.Builder
	switch {
	case p.Spec.HostNetwork:
		host, err := os.ReadFile(hostsPath)
		if err != nil {
			return "", fmt.Errorf("read the host's hosts file: %w", err)
		}
		b.WriteString("# Kubernetes-managed hosts file (host network).\n" + string(host))
	case len(p.Status.PodIPs) == 0:
		return "", nil
	default:
		b.WriteString(`# Kubernetes-managed hosts file.
127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::0	ip6-localnet
fe00::0	ip6-mcastprefix
fe00::1	ip6-allnodes
fe00::2	ip6-allrouters
`)
		host, domain := n.names(p)
		for _, ip := range p.Status.PodIPs {
			b.WriteString(ip.IP + "\t")
			if domain != "" {
				b.WriteString(host + "." + domain + "\t")
			}
			b.WriteString(host + "\n")
		}
	}
	if len(p.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
	}
	for _, a := range p.Spec.HostAliases {
		b.WriteString(a.IP + "\t" + strings.Join(a.Hostnames, "\t") + "\n")
	}
	return b.String(), nil
}

func (n *Namer) cleanup(_ context.Context, uid types.UID) error {
	if err := os.Remove(n.hostsFile(uid)); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("remove hosts file: %w", err)
	}
	return nil
}
