package alloc_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/memory"
	"github.com/knarr-dev/knarr/registry/rest"
)

// record writes the record of an address as somebody else might.
func (s *server) record(t *testing.T, ip, parent string, age time.Duration) {
	t.Helper()
	k := s.Kind(networkingv1.Resource("ipaddresses"))
	value, err := k.Main().Wire.Encode(&networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{
			Name: ip, UID: "theirs", CreationTimestamp: metav1.NewTime(time.Now().Add(-age)),
			Labels: map[string]string{networkingv1.LabelManagedBy: "ipallocator.k8s.io", networkingv1.LabelIPAddressFamily: "IPv4"},
		},
		Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: "default", Name: parent}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, registry.Op{Key: "/registry/ipaddresses/" + ip, Old: registry.Unchecked, Value: value})
}

// write writes past all rules, and waits until that is seen.
func (s *server) write(t *testing.T, op registry.Op) {
	t.Helper()
	rev, err := s.Store.Commit(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Cache.Wait(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
}

// TestMend puts right what a crash or another hand has left wrong.
func TestMend(t *testing.T) {
	s := serve(t, memory.New(), "10.0.0.0/16")
	ctx := t.Context()
	for i, name := range []string{"bare", "robbed", "marked", "fine"} {
		spec := fmt.Sprintf("clusterIP: 10.0.0.%d, type: NodePort, ports: [{port: 80, nodePort: %d}]", 10+i, 30010+i)
		if _, err := s.create(ctx, name, spec, false); err != nil {
			t.Fatal(err)
		}
	}
	s.write(t, registry.Op{Key: "/registry/ipaddresses/10.0.0.10", Old: registry.Unchecked})
	s.record(t, "10.0.0.11", "nobody", 0)
	s.record(t, "10.0.0.20", "nobody", 2*time.Minute) // a leak
	s.record(t, "10.0.0.21", "coming", 0)             // a stock server is about to make its service
	s.record(t, "10.0.0.22", "fine", 2*time.Minute)   // the service has another
	s.write(t, registry.Op{Key: "/registry/ranges/servicenodeports", Old: registry.Unchecked})
	if err := s.alloc.Start(ctx); err != nil {
		t.Fatal(err)
	}
	want := []string{"10.0.0.10=bare", "10.0.0.11=robbed", "10.0.0.12=marked", "10.0.0.13=fine", "10.0.0.21=coming"}
	if got := s.records(t); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if got, want := s.ports(t), []int{30010, 30011, 30012, 30013}; !slices.Equal(got, want) {
		t.Errorf("ports %v, want %v", got, want)
	}
}

// TestMendPorts frees a port that is nobody's, but not before that has been
// seen some times: who took it may be about to write its service.
func TestMendPorts(t *testing.T) {
	s := serve(t, memory.New(), "10.0.0.0/16")
	ctx := t.Context()
	if _, err := s.create(ctx, "x", "type: NodePort, ports: [{port: 80, nodePort: 30003}]", false); err != nil {
		t.Fatal(err)
	}
	// The service goes, as it would if its port were freed by another who died.
	s.write(t, registry.Op{Key: "/registry/services/specs/default/x", Old: registry.Unchecked})
	for try := 1; try <= 3; try++ {
		if err := s.alloc.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if got := len(s.ports(t)); (got == 0) != (try == 3) {
			t.Errorf("after %d looks %d ports are taken", try, got)
		}
	}
}

// TestRange reads a map that was written for another range.
func TestRange(t *testing.T) {
	store := memory.New()
	s := serve(t, store, "10.0.0.0/16")
	if _, err := s.create(t.Context(), "x", "type: NodePort, ports: [{port: 80, nodePort: 30003}]", false); err != nil {
		t.Fatal(err)
	}
	r, err := store.Get(t.Context(), "/registry/ranges/servicenodeports")
	if err != nil {
		t.Fatal(err)
	}
	// 30003 is the bit 3 of a range from 30000, and the bit 1003 of one from 29000.
	moved := slices.Concat(r.Value[:0], r.Value)
	at := slices.Index(moved, '3')
	copy(moved[at:], "29000-32767")
	s.write(t, registry.Op{Key: r.Key, Old: r.Rev, Value: moved})
	again := serve(t, store, "10.0.0.0/16")
	if _, err := again.create(t.Context(), "y", "type: NodePort, ports: [{port: 80, nodePort: 30004}]", false); err != nil {
		t.Fatal(err)
	}
	again.check(t)
}

// TestRestore gives a record back that a client has deleted.
func TestRestore(t *testing.T) {
	s := serve(t, memory.New(), "10.0.0.0/16")
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { _ = s.alloc.Run(ctx) }) // it ends with ctx
	defer run.Wait()
	defer cancel()
	for i := range 20 {
		if _, err := s.create(ctx, fmt.Sprint("x", i), fmt.Sprintf("clusterIP: 10.0.0.%d", 10+i), false); err != nil {
			t.Fatal(err)
		}
	}
	addresses := s.Kind(networkingv1.Resource("ipaddresses"))
	watcher, err := addresses.Objects.Watch(ctx, cache.Selection{}, s.Cache.Rev(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	if _, err := addresses.Delete(ctx, &rest.Call{Name: "10.0.0.15"}, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		s.remove(t, fmt.Sprint("x", i)) // their records are to stay away
	}
	deadline := time.After(10 * time.Second)
	for gone, back := 0, false; gone < 6 || !back; {
		select {
		case <-watcher.Ready():
		case <-deadline:
			t.Fatalf("gone are %d, back is %v", gone, back)
		}
		ds, _, err := watcher.Take()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range ds {
			gone += map[string]int{"DELETED": 1}[d.Type]
			if d.Object.Name() == "10.0.0.15" {
				back = d.Type == "ADDED" && gone > 0
			}
		}
	}
	if _, err := s.services.Edit(ctx, &rest.Call{Namespace: "default", Name: "x19"}, func(obj apis.Object) error {
		obj.(*corev1.Service).Labels = map[string]string{"a": "b"}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	s.check(t)
}
