// Package peers lets API servers know of each other and clients in the
// cluster of all of them: the service "kubernetes" and its endpoints. Each
// server keeps a key with a short life in the store; the endpoints are those
// whose key is alive.
package peers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/rest"
)

const (
	name      = "kubernetes"
	portName  = "https"
	manager   = "kube-apiserver"          // in whose name fields are owned
	leasePath = "/registry/masterleases/" // as upstream, so that stock servers are peers too
	leaseLife = 15 * time.Second
	every     = 10 * time.Second
	farewell  = 2 * every // how long a server that ends tries to take itself out
)

// Config says where the server is.
type Config struct {
	Service     netip.Addr // the cluster address of the service
	ServicePort int32      // 0 for 443
	NodePort    int32      // of the service, 0 for none

	// Address and Port are where others reach this server. Without an
	// address it is not among the endpoints, which then are left to others.
	Address netip.Addr
	Port    int32
}

// Peers is one server among all. Use New.
type Peers struct {
	Config

	svc       *rest.Service
	services  *rest.Kind
	endpoints *rest.Kind
	slices    *rest.Kind
	renewed   int64
}

// The old form of endpoints, which clients still look at.
type (
	endpoints       = corev1.Endpoints       //nolint:staticcheck // deprecated, and still in use
	endpointSubset  = corev1.EndpointSubset  //nolint:staticcheck // deprecated, and still in use
	endpointAddress = corev1.EndpointAddress //nolint:staticcheck // deprecated, and still in use
	endpointPort    = corev1.EndpointPort
)

// New makes a peer of the server whose kinds svc has.
func New(svc *rest.Service, cfg Config) *Peers {
	if cfg.ServicePort == 0 {
		cfg.ServicePort = 443
	}
	return &Peers{
		Config: cfg, svc: svc,
		services:  svc.Kind(corev1.Resource("services")),
		endpoints: svc.Kind(corev1.Resource("endpoints")),
		slices:    svc.Kind(discoveryv1.Resource("endpointslices")),
	}
}

// Start makes the service and puts this server among its endpoints. The
// namespace default must be there, and addresses must be given already.
func (p *Peers) Start(ctx context.Context) error {
	if err := p.serve(ctx); err != nil {
		return fmt.Errorf("make service %s: %w", name, err)
	}
	return p.join(ctx)
}

// Run keeps this server among the endpoints, and those out that are gone,
// until ctx ends; then it takes this server out.
func (p *Peers) Run(ctx context.Context) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
			defer cancel()
			return errors.Join(ctx.Err(), p.leave(last))
		case <-tick.C:
			if err := p.Start(ctx); err != nil && ctx.Err() == nil {
				slog.WarnContext(ctx, "keep server among its peers", "err", err)
			}
		}
	}
}

// call is for writes of the objects called like the service. Nobody else has
// a hand in their fields, so no account is kept of who owns them: the start
// would have to wait for all schemas to be read.
func (p *Peers) call() *rest.Call {
	return &rest.Call{Namespace: metav1.NamespaceDefault, Name: name, Applied: true}
}

// serve makes the service where it is not there.
func (p *Peers) serve(ctx context.Context) error {
	if p.services.Objects.Get(registry.Key(metav1.NamespaceDefault, name)) != nil {
		return nil
	}
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"provider": "kubernetes", "component": "apiserver"}},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: p.Service.String(),
			IPFamilyPolicy: new(corev1.IPFamilyPolicySingleStack), SessionAffinity: corev1.ServiceAffinityNone,
			Ports: []corev1.ServicePort{{
				Name: portName, Protocol: corev1.ProtocolTCP, Port: p.ServicePort,
				TargetPort: intstr.FromInt32(p.Port), NodePort: p.NodePort,
			}},
		},
	}
	if p.NodePort > 0 {
		svc.Spec.Type = corev1.ServiceTypeNodePort
	}
	return p.create(ctx, p.services, svc)
}

// create makes an object in the namespace default, if nobody else is faster.
func (p *Peers) create(ctx context.Context, k *rest.Kind, obj apis.Object) error {
	_, err := k.Main().Create(ctx, p.call(), obj)
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// edit changes the object called like the service, and makes it if it is not there.
func (p *Peers) edit(ctx context.Context, k *rest.Kind, change func(obj apis.Object) error) error {
	_, err := k.Edit(ctx, p.call(), change)
	if !apierrors.IsNotFound(err) {
		return err
	}
	obj := k.Definition.New()
	obj.SetName(name)
	if err := change(obj); err != nil {
		return err
	}
	return p.create(ctx, k, obj)
}

// join renews this server's key and has the endpoints show who is alive.
func (p *Peers) join(ctx context.Context) error {
	if !p.Address.IsValid() {
		return nil
	}
	p.renewed++
	// As upstream, whose store does not write what has not changed.
	value, err := p.endpoints.Main().Wire.Encode(&endpoints{
		ObjectMeta: metav1.ObjectMeta{Generation: p.renewed},
		Subsets:    []endpointSubset{{Addresses: []endpointAddress{{IP: p.Address.String()}}}},
	})
	if err != nil {
		return err
	}
	op := registry.Op{Key: leasePath + p.Address.String(), Old: registry.Unchecked, Value: value, TTL: leaseLife}
	if _, err := p.svc.Store.Commit(ctx, op); err != nil {
		return fmt.Errorf("renew %s: %w", op.Key, err)
	}
	alive, err := p.alive(ctx)
	if err != nil {
		return err
	}
	if len(alive) == 0 {
		return errors.New("not even this server is among its peers")
	}
	return p.publish(ctx, alive)
}

// leave takes this server out.
func (p *Peers) leave(ctx context.Context) error {
	if !p.Address.IsValid() {
		return nil
	}
	op := registry.Op{Key: leasePath + p.Address.String(), Old: registry.Unchecked}
	if _, err := p.svc.Store.Commit(ctx, op); err != nil {
		return fmt.Errorf("delete %s: %w", op.Key, err)
	}
	alive, err := p.alive(ctx)
	if err != nil {
		return err
	}
	return p.publish(ctx, alive)
}

// alive are the addresses of all servers, in order.
func (p *Peers) alive(ctx context.Context) (ips []string, err error) {
	page, err := p.svc.Store.List(ctx, registry.Query{Prefix: leasePath})
	if err != nil {
		return nil, fmt.Errorf("list servers: %w", err)
	}
	for _, r := range page.Records {
		ips = append(ips, r.Key[len(leasePath):])
	}
	return ips, nil
}

// publish makes endpoints and slice those of the given servers.
func (p *Peers) publish(ctx context.Context, ips []string) error {
	port := endpointPort{Name: portName, Port: p.Port, Protocol: corev1.ProtocolTCP}
	err := p.edit(ctx, p.endpoints, func(obj apis.Object) error {
		e := obj.(*endpoints)
		if e.Labels == nil {
			e.Labels = map[string]string{}
		}
		e.Labels[discoveryv1.LabelSkipMirror] = "true" // the slice is made here, too
		if len(ips) > 1 && len(e.Subsets) == 1 && len(e.Subsets[0].Ports) == 1 {
			port = e.Subsets[0].Ports[0] // of several servers none says what the port is
		}
		if want := subsets(ips, port); !apiequality.Semantic.DeepEqual(e.Subsets, want) {
			e.Subsets = want
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("publish servers: %w", err)
	}
	if err := p.publishSlice(ctx, slice(ips, port)); err != nil {
		return fmt.Errorf("publish servers: %w", err)
	}
	return nil
}

func subsets(ips []string, port endpointPort) []endpointSubset {
	if len(ips) == 0 {
		return nil
	}
	s := endpointSubset{Ports: []endpointPort{port}}
	for _, ip := range ips {
		s.Addresses = append(s.Addresses, endpointAddress{IP: ip})
	}
	return []endpointSubset{s}
}

// slice is the endpoint slice of the given servers: those of IPv4, if there
// are any.
func slice(ips []string, port endpointPort) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{},
	}
	isIPv4 := func(ip string) bool { a, err := netip.ParseAddr(ip); return err == nil && a.Is4() }
	if len(ips) > 0 && !slices.ContainsFunc(ips, isIPv4) {
		s.AddressType = discoveryv1.AddressTypeIPv6
	}
	for _, ip := range ips {
		if isIPv4(ip) == (s.AddressType == discoveryv1.AddressTypeIPv4) {
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}})
		}
	}
	if len(ips) > 0 {
		s.Ports = []discoveryv1.EndpointPort{{Name: &port.Name, Port: &port.Port, Protocol: &port.Protocol}}
	}
	return s
}

// publishSlice stores the endpoint slice.
func (p *Peers) publishSlice(ctx context.Context, want *discoveryv1.EndpointSlice) error {
	if o := p.slices.Objects.Get(registry.Key(metav1.NamespaceDefault, name)); o != nil {
		obj, err := o.Decode()
		if err != nil {
			return err
		}
		if obj.(*discoveryv1.EndpointSlice).AddressType != want.AddressType {
			// The type of a slice cannot change.
			_, err := p.slices.Delete(ctx, p.call(), &metav1.DeleteOptions{})
			if err != nil && !apierrors.IsNotFound(err) {
				return err
			}
		}
	}
	return p.edit(ctx, p.slices, func(obj apis.Object) error {
		s := obj.(*discoveryv1.EndpointSlice)
		same := apiequality.Semantic.DeepEqual
		if s.AddressType == "" {
			s.AddressType = want.AddressType
		}
		if !same(s.Endpoints, want.Endpoints) || !same(s.Ports, want.Ports) || !same(s.Labels, want.Labels) {
			s.Labels, s.Endpoints, s.Ports = want.Labels, want.Endpoints, want.Ports
		}
		return nil
	})
}
