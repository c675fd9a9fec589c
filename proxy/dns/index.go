package dns

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
)

// An Index is what is known of a cluster's services, and of them only what
// answers are made of. It is safe for concurrent use.
type Index struct {
	mu         sync.RWMutex
	namespaces sets.Set[string]
	services   map[types.NamespacedName]*service
	slices     map[types.NamespacedName]*slice
	of         map[types.NamespacedName][]*slice // by service
	owners     map[netip.Addr][]types.NamespacedName
	hosts      map[netip.Addr][]host
	changes    uint32
}

// A service is what a Service says of names.
type service struct {
	addrs    []netip.Addr
	ports    []port
	external string // where its name leads instead, empty for none
	headless bool
	unready  bool // its endpoints count even where they are not ready
}

type port struct {
	name, proto string // in lower case
	number      uint16
}

// A slice is what an EndpointSlice says of names.
type slice struct {
	service   types.NamespacedName
	ports     []port
	endpoints []endpoint
}

type endpoint struct {
	addr  netip.Addr
	host  string
	ready bool
}

// A host is an endpoint that has a name.
type host struct {
	service  types.NamespacedName
	endpoint *endpoint
}

// NewIndex returns an index of a cluster with nothing in it.
func NewIndex() *Index {
	return &Index{
		namespaces: sets.Set[string]{},
		services:   map[types.NamespacedName]*service{},
		slices:     map[types.NamespacedName]*slice{},
		of:         map[types.NamespacedName][]*slice{},
		owners:     map[netip.Addr][]types.NamespacedName{},
		hosts:      map[netip.Addr][]host{},
	}
}

// SetNamespace makes a namespace known.
func (x *Index) SetNamespace(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.changes++
	x.namespaces.Insert(name)
}

// DropNamespace forgets a namespace. What was in it is forgotten by itself.
func (x *Index) DropNamespace(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.changes++
	x.namespaces.Delete(name)
}

// SetService makes a service known, or what has become of it.
func (x *Index) SetService(s *corev1.Service) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.changes++
	key := types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
	x.dropService(key)
	now := newService(s)
	x.services[key] = now
	for _, a := range now.addrs {
		x.owners[a] = append(x.owners[a], key)
	}
}

// DropService forgets a service.
func (x *Index) DropService(key types.NamespacedName) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.changes++
	x.dropService(key)
}

func (x *Index) dropService(key types.NamespacedName) {
	was := x.services[key]
	if was == nil {
		return
	}
	delete(x.services, key)
	for _, a := range was.addrs {
		without(x.owners, a, func(k types.NamespacedName) bool { return k == key })
	}
}

func newService(s *corev1.Service) *service {
	now := &service{unready: s.Spec.PublishNotReadyAddresses}
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		if _, ok := dns.IsDomainName(s.Spec.ExternalName); ok {
			now.external = dns.Fqdn(s.Spec.ExternalName)
		}
		return now
	}
	if s.Spec.ClusterIP == corev1.ClusterIPNone {
		now.headless = true
		return now
	}
	for _, text := range append([]string{s.Spec.ClusterIP}, s.Spec.ClusterIPs...) {
		if a, err := netip.ParseAddr(text); err == nil && !slices.Contains(now.addrs, a.Unmap()) {
			now.addrs = append(now.addrs, a.Unmap())
		}
	}
	for _, p := range s.Spec.Ports {
		now.ports = append(now.ports, newPort(p.Name, p.Protocol, p.Port))
	}
	return now
}

func newPort(name string, proto corev1.Protocol, number int32) port {
	return port{strings.ToLower(name), strings.ToLower(string(cmp.Or(proto, corev1.ProtocolTCP))), uint16(number)}
}

// SetSlice makes some endpoints of a service known, or what has become of them.
func (x *Index) SetSlice(s *discoveryv1.EndpointSlice) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.changes++
	x.dropSlice(types.NamespacedName{Namespace: s.Namespace, Name: s.Name})
	now := newSlice(s)
	if now == nil {
		return
	}
	x.slices[types.NamespacedName{Namespace: s.Namespace, Name: s.Name}] = now
	x.of[now.service] = append(x.of[now.service], now)
	for i := range now.endpoints {
		if e := &now.endpoints[i]; e.host != "" {
			x.hosts[e.addr] = append(x.hosts[e.addr], host{now.service, e})
		}
	}
}

// DropSlice forgets some endpoints of a service.
func (x *Index) DropSlice(key types.NamespacedName) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.changes++
	x.dropSlice(key)
}

func (x *Index) dropSlice(key types.NamespacedName) {
	was := x.slices[key]
	if was == nil {
		return
	}
	delete(x.slices, key)
	without(x.of, was.service, func(s *slice) bool { return s == was })
	for i := range was.endpoints {
		if e := &was.endpoints[i]; e.host != "" {
			without(x.hosts, e.addr, func(h host) bool { return h.endpoint == e })
		}
	}
}

// newSlice is nil where s is of no service, or has no addresses by nature.
func newSlice(s *discoveryv1.EndpointSlice) *slice {
	owner := s.Labels[discoveryv1.LabelServiceName]
	if owner == "" || s.AddressType == discoveryv1.AddressTypeFQDN {
		return nil
	}
	now := &slice{service: types.NamespacedName{Namespace: s.Namespace, Name: owner}}
	for _, p := range s.Ports {
		if p.Port == nil {
			continue // any port: there is no number to tell
		}
		var name string
		if p.Name != nil {
			name = *p.Name
		}
		var proto corev1.Protocol
		if p.Protocol != nil {
			proto = *p.Protocol
		}
		now.ports = append(now.ports, newPort(name, proto, *p.Port))
	}
	for _, e := range s.Endpoints {
		var name string
		if e.Hostname != nil {
			name = strings.ToLower(*e.Hostname)
		}
		// An endpoint is ready where nothing says that it is not.
		ready := e.Conditions.Ready == nil || *e.Conditions.Ready
		for _, text := range e.Addresses {
			if a, err := netip.ParseAddr(text); err == nil {
				now.endpoints = append(now.endpoints, endpoint{a.Unmap(), name, ready})
			}
		}
	}
	return now
}

// without takes away the elements of a list that are out, and the list where
// none is left.
func without[K comparable, V any](lists map[K][]V, key K, out func(V) bool) {
	if left := slices.DeleteFunc(lists[key], out); len(left) > 0 {
		lists[key] = left
	} else {
		delete(lists, key)
	}
}

// Namespaces lists the known ones.
func (x *Index) Namespaces() []types.NamespacedName {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var all []types.NamespacedName
	for n := range x.namespaces {
		all = append(all, types.NamespacedName{Name: n})
	}
	return all
}

// Services lists the known ones.
func (x *Index) Services() []types.NamespacedName { return keys(x, x.services) }

// Slices lists the known ones.
func (x *Index) Slices() []types.NamespacedName { return keys(x, x.slices) }

func keys[V any](x *Index, m map[types.NamespacedName]V) []types.NamespacedName {
	x.mu.RLock()
	defer x.mu.RUnlock()
	all := make([]types.NamespacedName, 0, len(m))
	for k := range m {
		all = append(all, k)
	}
	return all
}
