//go:build e2e

package kills

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// verify holds what was written, seen and is stored against each other, and
// sums up.
func verify(t *testing.T, s *site, wrote []*writer, seen []*watcher) string {
	t.Helper()
	acks, unknown, watches := 0, 0, 0
	for i, w := range seen {
		watches += w.watches
		for _, f := range w.faults {
			t.Errorf("watcher %d: %s", i, f)
		}
		versions := map[string]event{}
		deleted := map[types.UID]bool{}
		for _, e := range w.events {
			if other, twice := versions[e.version]; twice {
				t.Errorf("watcher %d was told twice of %s: %v, %v", i, e.version, other, e)
			}
			versions[e.version] = e
			if e.kind == watch.Deleted {
				deleted[e.uid] = true
			}
		}
		for _, wr := range wrote {
			for _, a := range wr.acks {
				if e := versions[a.version]; a.version != "" && (e.name != a.name || e.uid != a.uid) || a.version == "" && !deleted[a.uid] {
					t.Errorf("watcher %d was not told of %+v, but of %+v", i, a, e)
				}
			}
		}
		if diff := cmp.Diff(seen[0].events, w.events, cmp.AllowUnexported(event{})); diff != "" {
			t.Errorf("watcher %d was told other things than watcher 0:\n%s", i, diff)
		}
	}
	for _, w := range wrote {
		acks, unknown = acks+len(w.acks), unknown+w.unknown
		for _, f := range w.faults {
			t.Errorf("writer %s: %s", w.name, f)
		}
	}
	stored(t, s, wrote, seen[0].events)
	return fmt.Sprintf("%d writes acknowledged, %d with an unknown end, %d events to each of %d watchers in %d watches",
		acks, unknown, len(seen[0].events), len(seen), watches)
}

// stored compares what is stored with what events and writers make of it.
func stored(t *testing.T, s *site, wrote []*writer, events []event) {
	t.Helper()
	list, err := s.client.CoreV1().ConfigMaps(space).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	is, told, known := map[string]string{}, map[string]string{}, map[string]string{}
	for _, m := range list.Items {
		is[m.Name] = m.ResourceVersion
	}
	for _, e := range events {
		told[e.name] = e.version
		if e.kind == watch.Deleted {
			delete(told, e.name)
		}
	}
	for _, w := range wrote {
		for name, m := range w.have {
			if m != nil {
				known[name] = m.ResourceVersion
			}
		}
	}
	known["last"] = is["last"]
	if !maps.Equal(is, told) || !maps.Equal(is, known) {
		t.Errorf("stored: %v\nby events: %v\nby the writers: %v", is, told, slices.Sorted(maps.Keys(known)))
	}
}
