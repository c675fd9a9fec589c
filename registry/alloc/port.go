package alloc

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/rest"
	"github.com/knarr-dev/knarr/registry/wire"
)

// A PortRange is the ports from First up to and with Last.
type PortRange struct{ First, Last int32 }

// ParsePortRange reads a range as the stock server writes it: 30000-32767.
func ParsePortRange(text string) (PortRange, error) {
	from, to, _ := strings.Cut(text, "-")
	first, err := strconv.ParseUint(from, 10, 16)
	last, err2 := strconv.ParseUint(to, 10, 16)
	if err := errors.Join(err, err2); err != nil || last < first {
		return PortRange{}, fmt.Errorf("read port range %q", text)
	}
	return PortRange{int32(first), int32(last)}, nil
}

func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

func (r PortRange) size() int { return int(r.Last-r.First) + 1 }

// low is how many of the first ports are given last, for clients to choose.
func (r PortRange) low() int {
	if r.size() <= 16 {
		return 0
	}
	return min(max(16, r.size()/32), 128)
}

// portsPath is where upstream keeps the map of all node ports.
const portsPath = "/registry/ranges/servicenodeports"

var mapKind = wire.NewKind(corev1.SchemeGroupVersion.WithKind("RangeAllocation"), func() apis.Object { return new(corev1.RangeAllocation) })

// ports is the map of all node ports as it was last seen. A commit that it is
// too old for fails and brings it up to date.
type ports struct {
	svc *rest.Service
	all PortRange

	mu      sync.Mutex
	known   bool
	rev     int64       // of the record, 0 where there is none
	taken   big.Int     // a bit for each port, as upstream
	doubted map[int]int // how often a bit was seen to be nobody's
}

// see takes over what stands in the store. The caller holds mu.
func (p *ports) see(r *registry.Record) error {
	p.known, p.rev = true, 0
	p.taken.SetInt64(0)
	if r == nil {
		return nil
	}
	o, err := mapKind.Object(r.Value, r.Rev)
	if err != nil {
		return err
	}
	obj, err := o.Decode()
	if err != nil {
		return err
	}
	stored := obj.(*corev1.RangeAllocation)
	p.rev = r.Rev
	p.taken.SetBytes(stored.Data)
	if stored.Range == p.all.String() || stored.Range == "" {
		return nil
	}
	// The server was told of another range before.
	before, err := ParsePortRange(stored.Range)
	if err != nil {
		return err
	}
	was := new(big.Int).Set(&p.taken)
	p.taken.SetInt64(0)
	for i := range was.BitLen() {
		if was.Bit(i) == 1 {
			p.set(before.First+int32(i), 1)
		}
	}
	return nil
}

// load brings the map up to date. The caller holds mu.
func (p *ports) load(ctx context.Context) error {
	r, err := p.svc.Store.Get(ctx, portsPath)
	if errors.Is(err, registry.ErrNotFound) {
		return p.see(nil)
	}
	if err != nil {
		return fmt.Errorf("read node ports: %w", err)
	}
	return p.see(&r)
}

func (p *ports) has(port int32) bool { return p.taken.Bit(int(port-p.all.First)) == 1 }

// set sets the bit of a port, if it has one.
func (p *ports) set(port int32, bit uint) {
	if p.contains(port) {
		p.taken.SetBit(&p.taken, int(port-p.all.First), bit)
	}
}

func (p *ports) contains(port int32) bool { return port >= p.all.First && port <= p.all.Last }

// check tells why a port cannot be given, nil if it can.
func (p *ports) check(ctx context.Context, port int32) error {
	if !p.contains(port) {
		return fmt.Errorf("provided port is not in the valid range. The range of valid ports is %s", p.all)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known && !p.has(port) {
		return nil
	}
	// It may have been freed by another server.
	if err := p.load(ctx); err != nil {
		return err
	}
	if p.has(port) {
		return errPortTaken
	}
	return nil
}

// pick finds a free port that is none of those.
func (p *ports) pick(ctx context.Context, but []int32) (int32, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for try := range 2 {
		if !p.known || try > 0 {
			if err := p.load(ctx); err != nil {
				return 0, err
			}
		}
		i, ok := pick(uint64(p.all.low()), uint64(p.all.size()), func(i uint64) bool {
			return p.taken.Bit(int(i)) == 0 && !slices.Contains(but, p.all.First+int32(i))
		})
		if ok {
			return p.all.First + int32(i), nil
		}
	}
	return 0, errFull
}

// commit calls write with what must be written of the map, and no two writes
// of it at once. Where a port is taken that was free it is a conflict.
func (p *ports) commit(ctx context.Context, take, free []int32, write func(...registry.Op) (int64, error)) (int64, error) {
	if len(take) == 0 && len(free) == 0 {
		return write()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.known {
		if err := p.load(ctx); err != nil {
			return 0, err
		}
	}
	for {
		if slices.ContainsFunc(take, p.has) {
			return 0, &registry.Conflict{Key: portsPath}
		}
		before := new(big.Int).Set(&p.taken)
		for _, port := range free {
			p.set(port, 0)
		}
		for _, port := range take {
			p.set(port, 1)
		}
		rev, err := p.store(write)
		if err == nil {
			p.rev = rev
			return rev, nil
		}
		p.taken.Set(before)
		var conflict *registry.Conflict
		if !errors.As(err, &conflict) || conflict.Key != portsPath {
			p.known = errors.As(err, &conflict) // otherwise nobody knows what was written
			return 0, err
		}
		if err := p.see(conflict.Have); err != nil {
			return 0, err
		}
	}
}

// store writes the map as it is.
func (p *ports) store(write func(...registry.Op) (int64, error)) (int64, error) {
	value, err := mapKind.Encode(&corev1.RangeAllocation{Range: p.all.String(), Data: p.taken.Bytes()})
	if err != nil {
		return 0, err
	}
	return write(registry.Op{Key: portsPath, Old: p.rev, Value: value})
}

func usesPorts(svc *corev1.Service) bool {
	return svc.Spec.Type == corev1.ServiceTypeNodePort || svc.Spec.Type == corev1.ServiceTypeLoadBalancer
}

// wantsPorts reports whether every port of the service is to have a node port.
func wantsPorts(svc *corev1.Service) bool {
	asked := svc.Spec.AllocateLoadBalancerNodePorts
	return usesPorts(svc) && (svc.Spec.Type == corev1.ServiceTypeNodePort || asked == nil || *asked)
}

// wantsCheck reports whether nodes are to tell at a port of its own whether
// they have endpoints of the service.
func wantsCheck(svc *corev1.Service) bool {
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer && svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// portsOf are the node ports that a service has, none of nil.
func portsOf(svc *corev1.Service) (all []int32) {
	if svc == nil {
		return nil
	}
	for _, p := range svc.Spec.Ports {
		if p.NodePort != 0 && !slices.Contains(all, p.NodePort) {
			all = append(all, p.NodePort)
		}
	}
	if port := svc.Spec.HealthCheckNodePort; port != 0 && wantsCheck(svc) {
		all = append(all, port)
	}
	return all
}

// settlePorts finds a node port for each port that is to have one, takes
// those that the client has chosen and frees what is not needed any more.
func (c *claim) settlePorts(ctx context.Context, was *corev1.Service) error {
	had := portsOf(was)
	keeps := []int32{}
	if usesPorts(c.svc) {
		// At first ports of one number for several protocols share a node port.
		shared := map[int32]int32{}
		for i := range c.svc.Spec.Ports {
			p := &c.svc.Spec.Ports[i]
			if p.NodePort == 0 && !wantsPorts(c.svc) {
				continue
			}
			if p.NodePort == 0 && was == nil {
				p.NodePort = shared[p.Port]
			}
			if err := c.nodePort(ctx, i, was, had, shared); err != nil {
				return err
			}
			keeps = append(keeps, p.NodePort)
		}
	}
	if wantsCheck(c.svc) {
		if err := c.checkPort(ctx, was != nil && wantsCheck(was)); err != nil {
			return err
		}
		keeps = append(keeps, c.svc.Spec.HealthCheckNodePort)
	}
	for _, port := range had {
		if !slices.Contains(keeps, port) {
			c.freePorts = append(c.freePorts, port)
		}
	}
	return nil
}

// nodePort sees to it that the ith port has a node port.
func (c *claim) nodePort(ctx context.Context, i int, was *corev1.Service, had []int32, shared map[int32]int32) (err error) {
	p := &c.svc.Spec.Ports[i]
	if p.NodePort == 0 && was == nil {
		p.NodePort = requested(c.svc, p.Port)
	}
	switch {
	case p.NodePort == 0:
		if p.NodePort, err = c.ports.pick(ctx, c.takePorts); err != nil {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate a nodePort: %w", err))
		}
	case slices.Contains(had, p.NodePort) || shared[p.Port] == p.NodePort || was != nil && slices.Contains(c.takePorts, p.NodePort):
		return nil
	default:
		if err = c.ports.check(ctx, p.NodePort); err == nil && slices.Contains(c.takePorts, p.NodePort) {
			err = errPortTaken
		}
		if err != nil {
			return c.invalid(field.ErrorList{field.Invalid(field.NewPath("spec", "ports").Index(i).Child("nodePort"), p.NodePort, err.Error())})
		}
	}
	c.takePorts = append(c.takePorts, p.NodePort)
	if shared[p.Port] == 0 {
		shared[p.Port] = p.NodePort
	}
	return nil
}

// requested is the node port that a client has chosen for a port of that
// number, whatever the protocol; 0 for none.
func requested(svc *corev1.Service, number int32) int32 {
	for _, p := range svc.Spec.Ports {
		if p.Port == number && p.NodePort != 0 {
			return p.NodePort
		}
	}
	return 0
}

// checkPort sees to it that the service has a port for health checks.
func (c *claim) checkPort(ctx context.Context, had bool) (err error) {
	port := &c.svc.Spec.HealthCheckNodePort
	switch {
	case had:
		return nil // validation does not let it change
	case *port == 0:
		if *port, err = c.ports.pick(ctx, c.takePorts); err != nil {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate a HealthCheck NodePort %v: %w", *port, err))
		}
	default:
		if err = c.ports.check(ctx, *port); err == nil && slices.Contains(c.takePorts, *port) {
			err = errPortTaken
		}
		if err != nil {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate requested HealthCheck NodePort %v: %w", *port, err))
		}
	}
	c.takePorts = append(c.takePorts, *port)
	return nil
}
