//go:build e2e

// Package kills is a checker: it writes and watches while the API server and
// its etcd are killed again and again, and holds every write that was
// acknowledged against every event that was seen.
package kills

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// How many write and watch at once.
const (
	writers  = 8
	watchers = 4
)

const space = "kills"

// TestKills kills the server, etcd or both at random times, as often as
// KNARR_KILLS says.
func TestKills(t *testing.T) {
	kills := 10
	if text := os.Getenv("KNARR_KILLS"); text != "" {
		var err error
		if kills, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	s := newSite(t)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: space}}
	if _, err := s.client.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	first, err := s.client.CoreV1().ConfigMaps(space).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var watching, writing sync.WaitGroup
	seen := make([]*watcher, watchers)
	for i := range seen {
		seen[i] = &watcher{client: s.client, at: first.ResourceVersion, woken: make(chan struct{}, 1)}
		watching.Go(func() { seen[i].run(ctx) })
	}
	done := make(chan struct{})
	wrote := make([]*writer, writers)
	for i := range wrote {
		wrote[i] = &writer{client: s.client, name: fmt.Sprint("w", i), rand: rand.New(rand.NewPCG(uint64(i), 1))}
		writing.Go(func() { wrote[i].run(ctx, done) })
	}
	longest := s.suffer(ctx, kills)
	close(done)
	writing.Wait()
	last, err := s.client.CoreV1().ConfigMaps(space).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "last"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range seen {
		if !w.await(last.ResourceVersion, time.Minute) {
			t.Errorf("watcher %d does not see the last write, %s", i, last.ResourceVersion)
		}
	}
	cancel()
	watching.Wait()
	sum := verify(t, s, wrote, seen)
	t.Logf("%d kills, the server away for at most %v: %s", kills, longest.Round(time.Millisecond), sum)
}

// suffer kills and starts again, and is for how long the server was away at
// most.
func (s *site) suffer(ctx context.Context, kills int) (longest time.Duration) {
	chance := rand.New(rand.NewPCG(2, 2))
	for range kills {
		calm := time.NewTimer(time.Duration(100+chance.IntN(900)) * time.Millisecond) // how long it may work undisturbed
		select {
		case <-calm.C:
		case <-ctx.Done():
			return longest
		}
		began := time.Now()
		victims := [][]string{{"apiserver"}, {"etcd"}, {"etcd", "apiserver"}}[chance.IntN(3)]
		for _, name := range victims {
			s.kill(name)
		}
		for _, name := range victims {
			s.start(name)
		}
		s.await(ctx)
		longest = max(longest, time.Since(began))
	}
	return longest
}
