package alloc

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/cache"
)

// manager is who the labels say has made an IPAddress: all API servers.
const manager = "ipallocator.k8s.io"

// A span is the addresses of a range that can be given: not the first, which
// names the range, nor an IPv4 range's last, which is everybody's.
type span struct {
	prefix netip.Prefix
	size   uint64 // how many there are
	low    uint64 // how many of them are given last, for clients to choose
}

func newRange(p netip.Prefix) span {
	s := span{prefix: p.Masked()}
	total, unusable := uint64(1)<<min(p.Addr().BitLen()-p.Bits(), 63), uint64(1)
	if p.Addr().Is4() {
		unusable = 2
	}
	if total > unusable {
		s.size = total - unusable
	}
	if total > 16 {
		s.low = min(max(16, total/16), 256)
	}
	return s
}

// at is the ith address.
func (s span) at(i uint64) netip.Addr {
	b := s.prefix.Addr().As16()
	low := binary.BigEndian.Uint64(b[8:])
	binary.BigEndian.PutUint64(b[8:], low+i+1)
	ip := netip.AddrFrom16(b)
	if s.prefix.Addr().Is4() {
		return ip.Unmap()
	}
	return ip
}

func (s span) contains(ip netip.Addr) bool {
	return s.size > 0 && s.prefix.Contains(ip) && s.at(0).Compare(ip) <= 0 && ip.Compare(s.at(s.size-1)) <= 0
}

// pick finds a number below size that is free, and one below low only where
// there is no other. It begins anywhere, so that who picks at the same time
// hardly ever picks the same.
func pick(low, size uint64, free func(i uint64) bool) (uint64, bool) {
	for _, band := range [][2]uint64{{low, size}, {0, low}} {
		if band[1] <= band[0] {
			continue
		}
		n := band[1] - band[0]
		start := rand.Uint64N(n)
		for i := range n {
			if at := band[0] + (start+i)%n; free(at) {
				return at, true
			}
		}
	}
	return 0, false
}

// spans are the ranges that may be given from now.
func (a *Allocator) spans(ctx context.Context) (all []span) {
	list, err := a.cidrs.Objects.List(ctx, cache.Query{})
	if err != nil {
		return nil // a list of what is in memory cannot fail
	}
	for _, o := range list.Objects {
		obj, err := o.Decode()
		if err != nil {
			continue
		}
		c := obj.(*networkingv1.ServiceCIDR)
		if c.DeletionTimestamp != nil || meta.IsStatusConditionFalse(c.Status.Conditions, networkingv1.ServiceCIDRConditionReady) {
			continue
		}
		for _, text := range c.Spec.CIDRs {
			if p, err := netip.ParsePrefix(text); err == nil {
				all = append(all, newRange(p))
			}
		}
	}
	return all
}

// pick finds a free address of a family, false where there is none.
func (a *Allocator) pick(ctx context.Context, family corev1.IPFamily) (netip.Addr, bool) {
	for _, s := range a.spans(ctx) {
		if familyOf(s.prefix.Addr()) != family {
			continue
		}
		i, ok := pick(s.low, s.size, func(i uint64) bool { return a.addresses.Objects.Get(s.at(i).String()) == nil })
		if ok {
			return s.at(i), true
		}
	}
	return netip.Addr{}, false
}

// check tells why an address cannot be given, nil if it can.
func (a *Allocator) check(ctx context.Context, ip netip.Addr) error {
	if !slices.ContainsFunc(a.spans(ctx), func(s span) bool { return s.contains(ip) }) {
		return errOutside
	}
	_, err := a.svc.Store.Get(ctx, a.path(ip))
	switch {
	case errors.Is(err, registry.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	return errTaken
}

// path is the key of an address's record.
func (a *Allocator) path(ip netip.Addr) string {
	return registry.Path(a.addresses.Definition, "", ip.String())
}

// record is the object that says to whom an address is given.
func (a *Allocator) record(ip netip.Addr, svc *corev1.Service) *networkingv1.IPAddress {
	return &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{
			Name: ip.String(), UID: a.svc.NewUID(), CreationTimestamp: metav1.NewTime(a.svc.Now()).Rfc3339Copy(),
			Labels: map[string]string{
				networkingv1.LabelIPAddressFamily: string(familyOf(ip)),
				networkingv1.LabelManagedBy:       manager,
			},
		},
		Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{
			Resource: "services", Namespace: svc.Namespace, Name: svc.Name,
		}},
	}
}

// belongs reports whether the record of an address says that it is svc's.
func (a *Allocator) belongs(ctx context.Context, ip netip.Addr, svc *corev1.Service) (bool, error) {
	if o := a.addresses.Objects.Get(ip.String()); o != nil {
		if is, err := recordOf(o); err == nil && refers(is, svc) {
			return true, nil
		}
	}
	// The service may be newer than what the cache shows.
	r, err := a.svc.Store.Get(ctx, a.path(ip))
	if errors.Is(err, registry.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	o, err := a.addresses.Main().Wire.Object(r.Value, r.Rev)
	if err != nil {
		return false, err
	}
	obj, err := o.Decode()
	return err == nil && refers(obj.(*networkingv1.IPAddress), svc), err
}

func refers(r *networkingv1.IPAddress, svc *corev1.Service) bool {
	p := r.Spec.ParentRef
	return p != nil && p.Group == "" && p.Resource == "services" && p.Namespace == svc.Namespace && p.Name == svc.Name
}
