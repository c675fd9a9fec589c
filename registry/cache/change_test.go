package cache_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/memory"
)

// TestPutWhileWritten: a kind that a running cache begins to keep has all of
// its objects and none that is gone, though they change meanwhile.
func TestPutWhileWritten(t *testing.T) {
	w := start(t, memory.New())
	const n = 300
	thing := func(i int) string { return fmt.Sprintf("/registry/example.com/things/ns/%03d", i) }
	value, err := podKind.Encode(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	half, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := range n {
			if i == n/2 {
				close(half)
			}
			w.commit(registry.Op{Key: thing(i), Old: registry.Unchecked, Value: value})
			if i%3 == 0 {
				w.commit(registry.Op{Key: thing(i), Old: registry.Unchecked})
			}
		}
	}()
	<-half
	k, err := w.cache.Put(t.Context(), podKind, cache.Config{Path: "example.com/things"})
	if err != nil {
		t.Fatal(err)
	}
	<-done
	if err := w.cache.Fresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if got, want := k.Get(fmt.Sprintf("ns/%03d", i)) != nil, i%3 != 0; got != want {
			t.Errorf("%s is there: %v, want %v", thing(i), got, want)
		}
	}
}

// TestRenew: a kind that is read in another way keeps its objects and its
// history. Who watched is told what has happened, and then that it is over.
func TestRenew(t *testing.T) {
	w := start(t, memory.New())
	first := w.put("ns", "a", "n1", "x")
	w.put("ns", "b", "n2", "x")
	w.fresh()
	old, err := w.pods.Watch(t.Context(), cache.Selection{}, first, false)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	k := w.cache.Renew(w.pods, podKind, cache.Config{Path: "pods", Fields: map[string]func(apis.Object) string{
		"metadata.uid": func(o apis.Object) string { return "uid of " + o.GetName() },
	}})
	if events, _, err := old.Take(); err != nil || len(events) != 1 || events[0].Object.Key != "ns/b" {
		t.Errorf("the old watch tells %v: %v", events, err)
	}
	if _, _, err := old.Take(); !errors.Is(err, cache.ErrOver) {
		t.Errorf("the old watch ends with %v", err)
	}
	sel := cache.Selection{Fields: fields.OneTermEqualSelector("metadata.uid", "uid of b")}
	// Who still has the old kind sees the new one.
	if l, err := w.pods.List(t.Context(), cache.Query{Selection: sel}); err != nil || len(l.Objects) != 1 || l.Objects[0].Key != "ns/b" {
		t.Errorf("list %v: %v", l, err)
	}
	again, err := k.Watch(t.Context(), cache.Selection{}, first, false)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	w.put("ns", "c", "n1", "x")
	w.fresh()
	events, _, err := again.Take()
	if err != nil || len(events) != 2 || events[0].Object.Key != "ns/b" || events[1].Object.Key != "ns/c" {
		t.Errorf("the new watch tells %v: %v", events, err)
	}
	w.cache.Remove(k)
	select {
	case <-again.Ready():
	case <-time.After(10 * time.Second):
		t.Fatal("the watch of a kind that is gone does not end")
	}
	if _, _, err := again.Take(); !errors.Is(err, cache.ErrOver) {
		t.Errorf("the watch of a kind that is gone ends with %v", err)
	}
}
