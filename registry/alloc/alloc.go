// Package alloc gives services their cluster addresses and node ports. What
// is given is written in the same commit as the service: an IPAddress object
// for each address, and the map of all node ports. So nothing is given twice
// or lost, whoever dies or races, and nothing need be read to give more: the
// cache shows which addresses are taken, and the map is kept as it was last
// written.
//
// It also keeps the ServiceCIDR that the server is configured with, and mends
// what others have left wrong. What a service may ask for is said in apis.
package alloc

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/rest"
)

// The stock server's texts.
var (
	errTaken     = errors.New("provided IP is already allocated")
	errOutside   = errors.New("the provided network does not match the current range")
	errFull      = errors.New("range is full")
	errPortTaken = errors.New("provided port is already allocated")
)

// Config says what there is to give.
type Config struct {
	Ranges []netip.Prefix // of cluster addresses, one a family; the first is of the default family
	Ports  PortRange      // zero for the stock server's
}

// An Allocator gives addresses and ports to services. Use New.
type Allocator struct {
	svc       *rest.Service
	services  *rest.Kind
	addresses *rest.Kind
	cidrs     *rest.Kind
	endpoints *rest.Kind
	ranges    []netip.Prefix
	ports     ports
	lost      *cache.Watcher // of records that are deleted
}

// New makes an allocator and lets the services of svc be served by it. All
// kinds must have been added to svc.
func New(svc *rest.Service, cfg Config) *Allocator {
	if cfg.Ports == (PortRange{}) {
		cfg.Ports = PortRange{30000, 32767}
	}
	a := &Allocator{
		svc: svc, ranges: cfg.Ranges, ports: ports{svc: svc, all: cfg.Ports},
		services:  svc.Kind(corev1.Resource("services")),
		endpoints: svc.Kind(corev1.Resource("endpoints")),
		addresses: svc.Kind(networkingv1.Resource("ipaddresses")),
		cidrs:     svc.Kind(networkingv1.Resource("servicecidrs")),
	}
	a.services.Reserve = a.reserve
	return a
}

// First is the first address of the first range, where the API server itself
// is to be found.
func (a *Allocator) First() netip.Addr { return newRange(a.ranges[0]).at(0) }

// families are those that the server is configured for, the default first.
func (a *Allocator) families() []corev1.IPFamily {
	fs := make([]corev1.IPFamily, len(a.ranges))
	for i, r := range a.ranges {
		fs[i] = familyOf(r.Addr())
	}
	return fs
}

func familyOf(ip netip.Addr) corev1.IPFamily {
	if ip.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// A claim is what one write of a service takes and frees.
type claim struct {
	*Allocator

	svc  *corev1.Service
	gone bool // the service goes

	take, free           []netip.Addr
	takePorts, freePorts []int32
	wrong                bool // the service cannot be served, which validation is to say
}

// reserve is a rest.Reserver.
func (a *Allocator) reserve(ctx context.Context, obj, old apis.Object) (rest.Commit, error) {
	was, _ := old.(*corev1.Service)
	if obj == nil {
		c := &claim{Allocator: a, svc: was, gone: true, free: addressesOf(was), freePorts: portsOf(was)}
		return c.commit, nil
	}
	c := &claim{Allocator: a, svc: obj.(*corev1.Service)}
	return c.commit, c.settle(ctx, was)
}

// settle decides what the service needs, given what it had.
func (c *claim) settle(ctx context.Context, was *corev1.Service) error {
	if c.wrong = !coherent(c.svc); c.wrong {
		return nil
	}
	if errs := settleFamilies(c.svc, was, c.families()); len(errs) > 0 {
		return c.invalid(errs)
	}
	if err := c.settleAddresses(ctx, was); err != nil {
		return err
	}
	return c.settlePorts(ctx, was)
}

func (c *claim) invalid(errs field.ErrorList) error {
	return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), c.svc.Name, errs)
}

// settleAddresses finds an address for each family that has none, takes those
// that the client has chosen and frees what is not needed any more.
func (c *claim) settleAddresses(ctx context.Context, was *corev1.Service) error {
	if c.wrong = changed(c.svc, was); c.wrong {
		return nil
	}
	had := map[netip.Addr]bool{}
	for _, ip := range addressesOf(was) {
		had[ip] = true
	}
	if needsAddress(c.svc) && !headless(c.svc) {
		spec := &c.svc.Spec
		spec.ClusterIPs = slices.Clone(spec.ClusterIPs) // they may be shared with what was
		for i, family := range spec.IPFamilies {
			if i == len(spec.ClusterIPs) {
				spec.ClusterIPs = append(spec.ClusterIPs, "")
			}
			ip, err := c.address(ctx, family, spec.ClusterIPs, i, had)
			if err != nil {
				return err
			}
			if !had[ip] {
				c.take = append(c.take, ip)
			}
			delete(had, ip)
			if spec.ClusterIPs[i] == "" {
				spec.ClusterIPs[i] = ip.String()
			}
		}
		spec.ClusterIP = spec.ClusterIPs[0]
	}
	for ip := range had {
		c.free = append(c.free, ip)
	}
	return nil
}

// address is the one that a service is to have in a family: what the client
// has chosen as given[i], or any.
func (c *claim) address(ctx context.Context, family corev1.IPFamily, given []string, i int, had map[netip.Addr]bool) (netip.Addr, error) {
	if given[i] == "" {
		ip, ok := c.pick(ctx, family)
		if !ok {
			return ip, apierrors.NewInternalError(fmt.Errorf("failed to allocate a serviceIP for Service %q: %w", c.svc.Name, errFull))
		}
		return ip, nil
	}
	ip, err := netip.ParseAddr(given[i])
	if err != nil {
		return ip, apierrors.NewInternalError(fmt.Errorf("failed to parse service IP %q", given[i]))
	}
	if had[ip] {
		return ip, nil
	}
	if err := c.check(ctx, ip); err != nil {
		return ip, c.invalid(field.ErrorList{field.Invalid(field.NewPath("spec", "clusterIPs"), given,
			fmt.Sprintf("failed to allocate IP %v: %v", given[i], err))})
	}
	return ip, nil
}

// commit is a rest.Commit.
func (c *claim) commit(ctx context.Context, write func(...registry.Op) (int64, error)) (int64, error) {
	if c.wrong {
		return 0, apierrors.NewInternalError(fmt.Errorf("addresses of service %q make no sense", c.svc.Name))
	}
	ops, err := c.ops(ctx)
	if err != nil {
		return 0, err
	}
	return c.ports.commit(ctx, c.takePorts, c.freePorts, func(more ...registry.Op) (int64, error) {
		return write(append(ops, more...)...)
	})
}

// ops are the writes of the claim that are no service's and no port's.
func (c *claim) ops(ctx context.Context) (ops []registry.Op, err error) {
	for _, ip := range c.take {
		value, err := c.addresses.Main().Wire.Encode(c.record(ip, c.svc))
		if err != nil {
			return nil, err
		}
		ops = append(ops, registry.Op{Key: c.path(ip), Value: value})
	}
	if c.gone {
		// As upstream: a service that comes back is not to find the endpoints
		// of the one that was.
		ops = append(ops, registry.Op{Key: registry.Path(c.endpoints.Definition, c.svc.Namespace, c.svc.Name), Old: registry.Unchecked})
	}
	for _, ip := range c.free {
		mine, err := c.belongs(ctx, ip, c.svc)
		if err != nil {
			return nil, err
		}
		if mine {
			ops = append(ops, registry.Op{Key: c.path(ip), Old: registry.Unchecked})
		}
	}
	return ops, nil
}
