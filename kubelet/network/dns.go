package network

import (
	"fmt"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What resolvers can be relied on to read; upstream's limits.
const (
	maxServers     = 3
	maxSearches    = 32
	maxSearch      = 253
	maxSearchChars = 2048
)

// dns is the resolver configuration of a pod.
func (n *Namer) dns(p *corev1.Pod) (*runtimeapi.DNSConfig, error) {
	host, err := readResolv(n.ResolvConf)
	if err != nil {
		return nil, err
	}
	cluster := p.Spec.DNSPolicy == corev1.DNSClusterFirstWithHostNet ||
		p.Spec.DNSPolicy != corev1.DNSDefault && p.Spec.DNSPolicy != corev1.DNSNone && !p.Spec.HostNetwork
	c := host
	switch {
	case p.Spec.DNSPolicy == corev1.DNSNone:
		c = &runtimeapi.DNSConfig{}
	case cluster && len(n.Servers) > 0:
		c = &runtimeapi.DNSConfig{Servers: slices.Clone(n.Servers), Searches: host.Searches, Options: []string{"ndots:5"}}
		if n.Domain != "" {
			c.Searches = unique(append([]string{p.Namespace + ".svc." + n.Domain, "svc." + n.Domain, n.Domain}, host.Searches...))
		}
	case cluster:
		n.Tell(p, "", corev1.EventTypeWarning, "MissingClusterDNS", fmt.Sprintf("kubelet does not have ClusterDNS IP configured and cannot create Pod using %q policy. Falling back to %q policy.", p.Spec.DNSPolicy, corev1.DNSDefault))
	}
	if d := p.Spec.DNSConfig; d != nil {
		c.Servers = unique(append(c.Servers, d.Nameservers...))
		c.Searches = unique(append(c.Searches, d.Searches...))
		for _, o := range d.Options {
			text := o.Name
			if o.Value != nil && *o.Value != "" {
				text += ":" + *o.Value
			}
			c.Options = option(c.Options, text)
		}
	}
	n.limit(p, c)
	return c, nil
}

// readResolv reads a resolver's configuration file. Without one a pod asks
// its own host, and nobody is there.
func readResolv(path string) (*runtimeapi.DNSConfig, error) {
	if path == "" {
		return &runtimeapi.DNSConfig{Servers: []string{"127.0.0.1"}, Searches: []string{"."}}, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the host's resolver configuration: %w", err)
	}
	c := &runtimeapi.DNSConfig{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if len(f) > 1 {
				c.Servers = append(c.Servers, f[1])
			}
		case "search": // the last line counts
			c.Searches = nil
			for _, s := range f[1:] {
				if s != "." {
					c.Searches = append(c.Searches, strings.TrimSuffix(s, "."))
				}
			}
		case "options":
			for _, o := range f[1:] {
				c.Options = option(c.Options, o)
			}
		}
	}
	return c, nil
}

// option adds an option, in place of one of the same name.
func option(list []string, o string) []string {
	name, _, _ := strings.Cut(o, ":")
	for i := range list {
		if had, _, _ := strings.Cut(list[i], ":"); had == name {
			list[i] = o
			return list
		}
	}
	return append(list, o)
}

func unique(list []string) (out []string) {
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// limit cuts off what resolvers would not read, and tells.
func (n *Namer) limit(p *corev1.Pod, c *runtimeapi.DNSConfig) {
	if len(c.Servers) > maxServers {
		c.Servers = c.Servers[:maxServers]
		n.Tell(p, "", corev1.EventTypeWarning, "DNSConfigForming", "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: "+strings.Join(c.Servers, " "))
	}
	fits := slices.DeleteFunc(slices.Clone(c.Searches[:min(len(c.Searches), maxSearches)]), func(s string) bool { return len(s) > maxSearch })
	for len(strings.Join(fits, " ")) > maxSearchChars {
		fits = fits[:len(fits)-1]
	}
	if len(fits) < len(c.Searches) {
		c.Searches = fits
		n.Tell(p, "", corev1.EventTypeWarning, "DNSConfigForming", "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: "+strings.Join(fits, " "))
	}
}
