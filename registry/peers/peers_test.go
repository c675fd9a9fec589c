package peers_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/apis/all"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/admit"
	"github.com/knarr-dev/knarr/registry/alloc"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/memory"
	"github.com/knarr-dev/knarr/registry/patch"
	"github.com/knarr-dev/knarr/registry/peers"
	"github.com/knarr-dev/knarr/registry/rest"
)

var serial int

// start starts a server at an address and returns what ends it: kindly, or
// as kill -9 does.
func start(t *testing.T, store registry.Store, address string, port int32) (svc *rest.Service, end, kill func()) {
	t.Helper()
	svc = &rest.Service{
		Store: store, Cache: cache.New(store), Owners: patch.NewOwners(all.Scheme()), Now: time.Now,
		NewUID: func() types.UID { serial++; return types.UID(fmt.Sprint(serial)) },
	}
	svc.Admit = &admit.Chain{World: svc}
	for _, g := range all.Groups {
		for i := range g.Resources {
			svc.Add(&g.Resources[i])
		}
	}
	a := alloc.New(svc, alloc.Config{Ranges: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}})
	p := peers.New(svc, peers.Config{Service: a.First(), Address: netip.MustParseAddr(address), Port: port})
	life, die := context.WithCancel(t.Context())
	ctx, cancel := context.WithCancel(life)
	ended := make(chan struct{})
	go func() { _ = svc.Cache.Run(life) }() // it ends with life
	<-svc.Cache.Loaded()
	for _, start := range []func(context.Context) error{a.Start, p.Start} {
		if err := start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		defer close(ended)
		_ = p.Run(ctx) // it ends with ctx
	}()
	kill = func() { die(); <-ended }
	return svc, func() { cancel(); <-ended; die() }, kill
}

// show reads the endpoints from the store: address, port and type.
func show(t *testing.T, store registry.Store) string {
	t.Helper()
	get := func(key string, into interface{ Unmarshal([]byte) error }) {
		r, err := store.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		var envelope runtime.Unknown
		if err := envelope.Unmarshal(r.Value[4:]); err != nil {
			t.Fatal(err)
		}
		if err := into.Unmarshal(envelope.Raw); err != nil {
			t.Fatal(err)
		}
	}
	var e corev1.Endpoints //nolint:staticcheck // deprecated, and still in use
	var s discoveryv1.EndpointSlice
	get("/registry/services/endpoints/default/kubernetes", &e)
	get("/registry/endpointslices/default/kubernetes", &s)
	old, now := "", string(s.AddressType)
	for _, subset := range e.Subsets {
		for _, a := range subset.Addresses {
			old += fmt.Sprintf(" %s:%d", a.IP, subset.Ports[0].Port)
		}
	}
	for _, ep := range s.Endpoints {
		now += fmt.Sprintf(" %s:%d", ep.Addresses[0], *s.Ports[0].Port)
	}
	if e.Labels["endpointslice.kubernetes.io/skip-mirror"] != "true" || s.Labels["kubernetes.io/service-name"] != "kubernetes" {
		t.Errorf("labels are %v and %v", e.Labels, s.Labels)
	}
	if string(s.AddressType)+old != now {
		t.Errorf("endpoints are%s, slice is %s", old, now)
	}
	return now
}

// TestPeers follows servers as they come and go.
func TestPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		svc, end1, _ := start(t, store, "192.0.2.1", 6443)
		obj, err := svc.Lookup(t.Context(), corev1.Resource("services"), "default", "kubernetes")
		if err != nil {
			t.Fatal(err)
		}
		s := obj.(*corev1.Service)
		want := corev1.ServicePort{Name: "https", Protocol: "TCP", Port: 443}
		want.TargetPort.IntVal = 6443
		if s.Spec.ClusterIP != "10.0.0.1" || !slices.Equal(s.Spec.Ports, []corev1.ServicePort{want}) || *s.Spec.IPFamilyPolicy != "SingleStack" ||
			s.Spec.SessionAffinity != "None" || s.Spec.Selector != nil || s.Labels["component"] != "apiserver" || s.Labels["provider"] != "kubernetes" {
			t.Errorf("service is %v", s)
		}
		if got := show(t, store); got != "IPv4 192.0.2.1:6443" {
			t.Errorf("alone: %s", got)
		}
		before, err := store.Get(t.Context(), "/registry/services/endpoints/default/kubernetes")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if after, err := store.Get(t.Context(), before.Key); err != nil || after.Rev != before.Rev {
			t.Errorf("endpoints were written though nothing had changed: %v", err)
		}

		_, _, kill2 := start(t, store, "192.0.2.2", 6443)
		if got := show(t, store); got != "IPv4 192.0.2.1:6443 192.0.2.2:6443" {
			t.Errorf("with a second: %s", got)
		}
		kill2()
		time.Sleep(30 * time.Second)
		if got := show(t, store); got != "IPv4 192.0.2.1:6443" {
			t.Errorf("after the second died: %s", got)
		}
		_, end3, _ := start(t, store, "192.0.2.3", 6443)
		end1()
		if got := show(t, store); got != "IPv4 192.0.2.3:6443" {
			t.Errorf("after the first ended: %s", got)
		}
		end3()
		if got := show(t, store); got != "IPv4" {
			t.Errorf("after all ended: %s", got)
		}
		_, end4, _ := start(t, store, "2001:db8::1", 7443)
		if got := show(t, store); got != "IPv6 2001:db8::1:7443" {
			t.Errorf("moved to another port and family: %s", got)
		}
		end4()
	})
}
