package alloc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/cache"
)

// settling is how long an address may have no service that holds it: a stock
// server gives an address before it writes the service.
const settling = time.Minute

// mend looks at all services, their addresses and their ports, and puts right
// what does not agree. Whatever it writes it writes only if nothing has
// changed in between; then the next time will do.
func (a *Allocator) mend(ctx context.Context) error {
	services, err := a.services.Objects.List(ctx, cache.Query{})
	if err != nil {
		return err
	}
	var errs []error
	for _, o := range services.Objects {
		errs = append(errs, a.mendService(ctx, o))
	}
	records, err := a.addresses.Objects.List(ctx, cache.Query{})
	if err != nil {
		return err
	}
	for _, o := range records.Objects {
		errs = append(errs, a.mendRecord(ctx, o))
	}
	return errors.Join(append(errs, a.ports.mend(ctx, a.services.Objects))...)
}

// mendService gives a service's addresses their records where they have none.
func (a *Allocator) mendService(ctx context.Context, o *cache.Object) error {
	svc, err := service(o)
	if err != nil || headless(svc) {
		return err
	}
	for _, ip := range addressesOf(svc) {
		old, op := a.addresses.Objects.Get(ip.String()), registry.Op{Key: a.path(ip)}
		record := a.record(ip, svc)
		if old != nil {
			is, err := recordOf(old)
			if err != nil {
				return err
			}
			if refers(is, svc) && is.Labels[networkingv1.LabelManagedBy] == manager && is.Labels[networkingv1.LabelIPAddressFamily] == string(familyOf(ip)) {
				continue
			}
			if a.holder(is) != nil && !refers(is, svc) {
				slog.WarnContext(ctx, "an address is given to two services; one must be made anew", "ip", ip, "obj", "Service/"+o.Key, "other", is.Spec.ParentRef.Namespace+"/"+is.Spec.ParentRef.Name)
				continue
			}
			record.ObjectMeta.UID, record.CreationTimestamp = is.UID, is.CreationTimestamp
			op.Old = old.Rev
		}
		slog.WarnContext(ctx, "a service's address was not on record", "ip", ip, "obj", "Service/"+o.Key)
		if op.Value, err = a.addresses.Main().Wire.Encode(record); err != nil {
			return err
		}
		if err := a.commitIf(ctx, svc.Namespace, svc.Name, o, op); err != nil {
			return fmt.Errorf("record %s: %w", ip, err)
		}
	}
	return nil
}

// mendRecord deletes the record of an address that nobody has.
func (a *Allocator) mendRecord(ctx context.Context, o *cache.Object) error {
	is, err := recordOf(o)
	if err != nil || is.Labels[networkingv1.LabelManagedBy] != manager || a.holder(is) != nil {
		return err
	}
	op := registry.Op{Key: registry.Path(a.addresses.Definition, "", is.Name), Old: o.Rev}
	p := is.Spec.ParentRef
	if p == nil || p.Group != "" || p.Resource != "services" {
		return ignoreConflict(a.svc.Store.Commit(ctx, op))
	}
	if a.svc.Now().Sub(is.CreationTimestamp.Time) < settling {
		return nil
	}
	slog.WarnContext(ctx, "an address is on record that no service has", "ip", is.Name)
	return a.commitIf(ctx, p.Namespace, p.Name, a.services.Objects.Get(registry.Key(p.Namespace, p.Name)), op)
}

// restore gives an address its record back that somebody has deleted though
// its service has it still.
func (a *Allocator) restore(ctx context.Context, d cache.Delivery) error {
	if d.Type != cache.Deleted {
		return nil
	}
	is, err := recordOf(d.Object)
	if err != nil {
		return err
	}
	// Mostly the service went in the same commit.
	if err := a.svc.Cache.Wait(ctx, d.Object.Rev); err != nil {
		return err
	}
	if o := a.holder(is); o != nil {
		return a.mendService(ctx, o)
	}
	return nil
}

// holder is the service that a record is of, nil where it does not exist or
// does not have the address.
func (a *Allocator) holder(is *networkingv1.IPAddress) *cache.Object {
	p := is.Spec.ParentRef
	if p == nil || p.Group != "" || p.Resource != "services" {
		return nil
	}
	o := a.services.Objects.Get(registry.Key(p.Namespace, p.Name))
	if o == nil {
		return nil
	}
	svc, err := service(o)
	if err != nil || !slices.ContainsFunc(addressesOf(svc), func(ip netip.Addr) bool { return ip.String() == is.Name }) {
		return nil
	}
	return o
}

// commitIf does op if the service is still as o, nil for not there.
func (a *Allocator) commitIf(ctx context.Context, namespace, name string, o *cache.Object, op registry.Op) error {
	check := registry.Op{Key: registry.Path(a.services.Definition, namespace, name), Check: true}
	if o != nil {
		check.Old = o.Rev
	}
	return ignoreConflict(a.svc.Store.Commit(ctx, check, op))
}

func ignoreConflict(_ int64, err error) error {
	if _, conflict := errors.AsType[*registry.Conflict](err); conflict {
		return nil
	}
	return err
}

func service(o *cache.Object) (*corev1.Service, error) {
	obj, err := o.Decode()
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Service), nil
}

func recordOf(o *cache.Object) (*networkingv1.IPAddress, error) {
	obj, err := o.Decode()
	if err != nil {
		return nil, err
	}
	return obj.(*networkingv1.IPAddress), nil
}

// doubts is how often a port must be seen to be nobody's before it is free:
// a stock server takes a port before it writes the service.
const doubts = 3

// mend makes the map of ports show those of all services. A port that is
// taken and nobody's is freed when that has been seen some times.
func (p *ports) mend(ctx context.Context, services *cache.Kind) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.load(ctx); err != nil {
		return err
	}
	// What has changed the map has changed services in the same commit.
	if err := p.svc.Cache.Wait(ctx, p.rev); err != nil {
		return err
	}
	list, err := services.List(ctx, cache.Query{})
	if err != nil {
		return err
	}
	was := new(big.Int).Set(&p.taken)
	p.taken.SetInt64(0)
	for _, o := range list.Objects {
		svc, err := service(o)
		if err != nil {
			return err
		}
		for _, port := range portsOf(svc) {
			p.set(port, 1)
		}
	}
	p.doubt(was)
	if p.rev != 0 && was.Cmp(&p.taken) == 0 {
		return nil
	}
	rev, err := p.store(func(ops ...registry.Op) (int64, error) { return p.svc.Store.Commit(ctx, ops...) })
	if p.known = err == nil; p.known {
		p.rev = rev
	}
	return ignoreConflict(0, err)
}

// doubt keeps the ports taken that only lately have become nobody's.
func (p *ports) doubt(was *big.Int) {
	seen := map[int]int{}
	for i := range was.BitLen() {
		if was.Bit(i) == 0 || p.taken.Bit(i) == 1 {
			continue
		}
		if seen[i] = p.doubted[i] + 1; seen[i] < doubts {
			p.taken.SetBit(&p.taken, i, 1)
		}
	}
	p.doubted = seen
}
