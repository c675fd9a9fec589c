package cache_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/memory"
	"github.com/knarr-dev/knarr/registry/wire"
)

var podKind = wire.NewKind(corev1.SchemeGroupVersion.WithKind("Pod"), func() apis.Object { return &corev1.Pod{} })

// world is a store with a running cache of its pods.
type world struct {
	*testing.T
	store registry.Store
	cache *cache.Cache
	pods  *cache.Kind
}

func start(t *testing.T, store registry.Store) *world {
	t.Helper()
	c := cache.New(store)
	w := &world{T: t, store: store, cache: c}
	w.pods = c.Add(podKind, cache.Config{Path: "pods", Indexed: "spec.nodeName", Fields: map[string]func(apis.Object) string{
		"spec.nodeName": func(o apis.Object) string { return o.(*corev1.Pod).Spec.NodeName },
		"status.phase":  func(o apis.Object) string { return string(o.(*corev1.Pod).Status.Phase) },
	}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("cache ended with %v", err)
		}
	})
	select {
	case <-c.Loaded():
	case <-time.After(10 * time.Second):
		t.Fatal("cache does not load")
	}
	return w
}

// pod describes one for put: "ns/name node app".
func (w *world) put(ns, name, node, app string) int64 {
	w.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{"app": app}}, Spec: corev1.PodSpec{NodeName: node}}
	value, err := podKind.Encode(pod)
	if err != nil {
		w.Fatal(err)
	}
	return w.commit(registry.Op{Key: "/registry/pods/" + ns + "/" + name, Old: registry.Unchecked, Value: value})
}

func (w *world) delete(key string) int64 {
	return w.commit(registry.Op{Key: "/registry/pods/" + key, Old: registry.Unchecked})
}

func (w *world) commit(op registry.Op) int64 {
	w.Helper()
	rev, err := w.store.Commit(w.Context(), op)
	if err != nil {
		w.Fatal(err)
	}
	return rev
}

func (w *world) fresh() {
	w.Helper()
	if err := w.cache.Fresh(w.Context()); err != nil {
		w.Fatal(err)
	}
}

// list returns "key@rev" of what q finds.
func (w *world) list(q cache.Query) (got []string, l cache.List) {
	w.Helper()
	l, err := w.pods.List(w.Context(), q)
	if err != nil {
		w.Fatal(err)
	}
	for _, o := range l.Objects {
		got = append(got, fmt.Sprintf("%s@%d", o.Key, o.Rev))
	}
	return got, l
}

func sel(t *testing.T, ns, label, field string) cache.Selection {
	t.Helper()
	s := cache.Selection{Namespace: ns}
	var err error
	if label != "" {
		if s.Labels, err = labels.Parse(label); err != nil {
			t.Fatal(err)
		}
	}
	if field != "" {
		if s.Fields, err = fields.ParseSelector(field); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestList(t *testing.T) {
	w := start(t, memory.New())
	w.put("a", "1", "n1", "web")  // 2
	w.put("a", "2", "n2", "web")  // 3
	w.put("b", "1", "n1", "db")   // 4
	w.put("ab", "1", "n1", "web") // 5
	w.put("a", "1", "n2", "web")  // 6
	w.delete("b/1")               // 7
	w.fresh()
	for _, c := range []struct {
		name string
		q    cache.Query
		want []string
	}{
		{"all, in key order", cache.Query{}, []string{"a/1@6", "a/2@3", "ab/1@5"}},
		{"one namespace", cache.Query{Selection: sel(t, "a", "", "")}, []string{"a/1@6", "a/2@3"}},
		{"by label", cache.Query{Selection: sel(t, "", "app=web", "")}, []string{"a/1@6", "a/2@3", "ab/1@5"}},
		{"by label in a namespace", cache.Query{Selection: sel(t, "ab", "app=web", "")}, []string{"ab/1@5"}},
		{"by two labels", cache.Query{Selection: sel(t, "", "app=web,x=y", "")}, nil},
		{"by label set", cache.Query{Selection: sel(t, "", "app in (db,web)", "metadata.name=2")}, []string{"a/2@3"}},
		{"by absence", cache.Query{Selection: sel(t, "", "!app", "")}, nil},
		{"by indexed field", cache.Query{Selection: sel(t, "", "", "spec.nodeName=n2")}, []string{"a/1@6", "a/2@3"}},
		{"by field that is not indexed", cache.Query{Selection: sel(t, "", "", "status.phase!=")}, nil},
		{"by name", cache.Query{Selection: sel(t, "a", "", "metadata.name=2")}, []string{"a/2@3"}},
		{"by name of another", cache.Query{Selection: sel(t, "a", "app=db", "metadata.name=2")}, nil},
		{"the past", cache.Query{Rev: 4}, []string{"a/1@2", "a/2@3", "b/1@4"}},
		{"the past by field", cache.Query{Rev: 5, Selection: sel(t, "", "", "spec.nodeName=n1")}, []string{"a/1@2", "ab/1@5", "b/1@4"}},
	} {
		if got, _ := w.list(c.q); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func TestPages(t *testing.T) {
	w := start(t, memory.New())
	for i := range 10 {
		w.put("a", fmt.Sprint(i), "n", "web")
	}
	w.fresh()
	first, l := w.list(cache.Query{Limit: 4})
	if len(first) != 4 || l.Next != "a/4" || l.Left != 6 {
		t.Fatalf("first page %v, next %q, left %d", first, l.Next, l.Left)
	}
	w.delete("a/5")
	w.put("a", "4a", "n", "web")
	w.fresh()
	second, l2 := w.list(cache.Query{Limit: 4, From: l.Next, Rev: l.Rev})
	if diff := cmp.Diff([]string{"a/4@6", "a/5@7", "a/6@8", "a/7@9"}, second); diff != "" || l2.Rev != l.Rev || l2.Left != 2 {
		t.Errorf("second page as of %d, left %d: %s", l2.Rev, l2.Left, diff)
	}
	_, l = w.list(cache.Query{Limit: 4, Selection: sel(t, "", "app=web", "")})
	if l.Next != "a/4" || l.Left != -1 {
		t.Errorf("with a selector next %q, left %d", l.Next, l.Left)
	}
}

// TestListCompacted holds that history that is compacted is not shown.
func TestListCompacted(t *testing.T) {
	w := start(t, memory.New())
	w.put("a", "1", "n", "web")
	rev := w.put("a", "2", "n", "web")
	w.fresh()
	w.cache.Compacted(rev)
	if _, err := w.pods.List(t.Context(), cache.Query{Rev: rev - 1}); !errors.Is(err, registry.ErrCompacted) {
		t.Errorf("list as of a compacted revision: %v", err)
	}
	if _, err := w.pods.Watch(t.Context(), cache.Selection{}, rev-1, false); !errors.Is(err, registry.ErrCompacted) {
		t.Errorf("watch from a compacted revision: %v", err)
	}
}

// late is a store that tells of what was before when it is let.
type late struct {
	registry.Store
	let chan struct{}
}

func (l *late) Watch(ctx context.Context, w registry.Watch, tell func(registry.Batch) error) error {
	if w.Prev {
		select {
		case <-l.let:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return l.Store.Watch(ctx, w, tell)
}

// TestHistoryIsLate holds that history which comes in when later history has
// been dropped is not taken for one without a gap.
func TestHistoryIsLate(t *testing.T) {
	for name, c := range map[string]struct {
		compacted int64
		after     int64 // where nobody may begin
	}{
		"compacted before the start": {3, 2},
		"compacted since":            {5, 4},
	} {
		t.Run(name, func(t *testing.T) {
			store := &late{memory.New(), make(chan struct{})}
			before := &world{T: t, store: store}
			for i := range 3 {
				before.put("a", fmt.Sprint(i), "n", "web") // up to 4
			}
			w := start(t, store)
			w.put("a", "3", "n", "web") // 5
			w.fresh()
			w.cache.Compacted(c.compacted)
			close(store.let)
			if _, err := w.pods.Watch(t.Context(), cache.Selection{}, c.after, false); !errors.Is(err, registry.ErrCompacted) {
				t.Errorf("watch after %d: %v", c.after, err)
			}
			if x := w.watch(cache.Selection{}, c.compacted, false); c.compacted == 3 {
				if got := take(t, x, 2); !slices.Equal(got, []string{"ADDED a/2@4", "ADDED a/3@5"}) {
					t.Errorf("watch after %d: %v", c.compacted, got)
				}
			}
		})
	}
}

// take reads n deliveries as "TYPE key@rev".
func take(t *testing.T, w *cache.Watcher, n int) (got []string) {
	t.Helper()
	for len(got) < n {
		select {
		case <-w.Ready():
		case <-time.After(10 * time.Second):
			t.Fatalf("only %d of %d, at last %v", len(got), n, got[max(0, len(got)-20):])
		}
		ds, _, err := w.Take()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range ds {
			got = append(got, fmt.Sprintf("%s %s@%d", d.Type, d.Object.Key, d.Object.Rev))
		}
	}
	return got
}

func (w *world) watch(s cache.Selection, after int64, initial bool) *cache.Watcher {
	w.Helper()
	x, err := w.pods.Watch(w.Context(), s, after, initial)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(x.Close)
	return x
}

func TestWatch(t *testing.T) {
	w := start(t, memory.New())
	w.put("a", "1", "n1", "web") // 2
	w.fresh()
	all := w.watch(cache.Selection{}, 2, false)
	initial := w.watch(cache.Selection{}, 0, true)
	onN1 := w.watch(sel(t, "", "", "spec.nodeName=n1"), 2, false)
	byLabel := w.watch(sel(t, "a", "app=web", ""), 2, false)
	byName := w.watch(sel(t, "a", "", "metadata.name=1"), 2, false)
	other := w.watch(sel(t, "b", "", ""), 2, false)
	if len(initial.Initial) != 1 || initial.Rev != 2 {
		t.Errorf("initial %v at %d", initial.Initial, initial.Rev)
	}
	w.put("a", "1", "n2", "web") // 3: leaves n1
	w.put("a", "1", "n2", "db")  // 4: leaves web
	w.put("a", "1", "n1", "web") // 5: enters both
	w.delete("a/1")              // 6
	w.put("b", "9", "n3", "db")  // 7
	want := []string{"MODIFIED a/1@3", "MODIFIED a/1@4", "MODIFIED a/1@5", "DELETED a/1@6", "ADDED b/9@7"}
	for name, c := range map[string]struct {
		w    *cache.Watcher
		want []string
	}{
		"all":      {all, want},
		"initial":  {initial, want},
		"node":     {onN1, []string{"DELETED a/1@3", "ADDED a/1@5", "DELETED a/1@6"}},
		"label":    {byLabel, []string{"MODIFIED a/1@3", "DELETED a/1@4", "ADDED a/1@5", "DELETED a/1@6"}},
		"name":     {byName, want[:4]},
		"other ns": {other, want[4:]},
	} {
		if diff := cmp.Diff(c.want, take(t, c.w, len(c.want))); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if got := take(t, w.watch(sel(t, "", "", "spec.nodeName=n1"), 3, false), 2); !slices.Equal(got, []string{"ADDED a/1@5", "DELETED a/1@6"}) {
		t.Errorf("from history %v", got)
	}
}

// A client may know of a write before the cache does, and is not told of it
// again.
func TestWatchFromAhead(t *testing.T) {
	w := start(t, memory.New())
	ahead := w.watch(cache.Selection{}, 3, false)
	w.put("a", "1", "n1", "web") // 2
	w.put("a", "1", "n2", "web") // 3
	w.put("a", "1", "n3", "web") // 4
	if got := take(t, ahead, 1); !slices.Equal(got, []string{"MODIFIED a/1@4"}) {
		t.Errorf("told %v", got)
	}
}

// TestWatchAcrossRestart holds that a client can go on where it was on a
// server that was started again.
func TestWatchAcrossRestart(t *testing.T) {
	store := memory.New()
	func() {
		t.Run("before", func(t *testing.T) {
			w := start(t, store)
			w.put("a", "1", "n1", "web") // 2
			w.put("a", "1", "n2", "web") // 3
			w.put("a", "2", "n1", "web") // 4
			w.delete("a/2")              // 5
		})
	}()
	w := start(t, store)
	w.put("a", "3", "n1", "web") // 6
	got := take(t, w.watch(cache.Selection{}, 2, false), 4)
	if diff := cmp.Diff([]string{"MODIFIED a/1@3", "ADDED a/2@4", "DELETED a/2@5", "ADDED a/3@6"}, got); diff != "" {
		t.Error(diff)
	}
	if got := take(t, w.watch(sel(t, "", "", "spec.nodeName=n1"), 2, false), 4); !slices.Equal(got, []string{"DELETED a/1@3", "ADDED a/2@4", "DELETED a/2@5", "ADDED a/3@6"}) {
		t.Errorf("by field: %v", got)
	}
}

// TestLongHistory holds that history which is read in several spans is whole
// and in order, and that nothing is told twice where they meet.
func TestLongHistory(t *testing.T) {
	store := memory.New()
	before := &world{T: t, store: store}
	want := make([]string, 2500)
	for i := range want {
		name := fmt.Sprintf("%04d", i)
		want[i] = fmt.Sprintf("ADDED a/%s@%d", name, before.put("a", name, "n1", "web"))
	}
	w := start(t, store)
	want = append(want, fmt.Sprintf("ADDED b/new@%d", w.put("b", "new", "n1", "web")))
	if diff := cmp.Diff(want, take(t, w.watch(cache.Selection{}, 1, false), len(want))); diff != "" {
		t.Error(diff)
	}
}

// flaky is a store whose watches fail when told to, after which it may have
// compacted what they missed.
type flaky struct {
	registry.Store
	fail chan struct{}
}

func (f *flaky) Watch(ctx context.Context, w registry.Watch, tell func(registry.Batch) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-f.fail:
			cancel(registry.ErrUnavailable)
		case <-ctx.Done():
		}
	}()
	err := f.Store.Watch(ctx, w, tell)
	if errors.Is(context.Cause(ctx), registry.ErrUnavailable) {
		return registry.ErrUnavailable
	}
	return err
}

func TestStoreCompactsWhileAway(t *testing.T) {
	store := &flaky{memory.New(), make(chan struct{})}
	w := start(t, store)
	w.put("a", "1", "n1", "web") // 2
	w.put("a", "2", "n1", "web") // 3
	w.put("a", "3", "n1", "web") // 4
	w.fresh()
	x := w.watch(cache.Selection{}, 4, false)
	store.fail <- struct{}{}
	w.put("a", "2", "n2", "web")        // 5, not seen
	w.put("a", "2", "n3", "web")        // 6
	w.delete("a/3")                     // 7
	rev := w.put("b", "4", "n1", "web") // 8
	if err := store.Compact(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"MODIFIED a/2@6", "ADDED b/4@8", "DELETED a/3@8"}, take(t, x, 3)); diff != "" {
		t.Error(diff)
	}
	if got, _ := w.list(cache.Query{}); !slices.Equal(got, []string{"a/1@2", "a/2@6", "b/4@8"}) {
		t.Errorf("list %v", got)
	}
	// Whoever has seen a part of it, by another server, is not told of the rest
	// as if it were all: of what came and went nobody knows.
	for after := int64(4); after < rev; after++ {
		if _, err := w.pods.Watch(t.Context(), cache.Selection{}, after, false); !errors.Is(err, registry.ErrCompacted) {
			t.Errorf("watch after %d, of which steps are missing: %v", after, err)
		}
		if _, err := w.pods.List(t.Context(), cache.Query{Rev: after}); !errors.Is(err, registry.ErrCompacted) {
			t.Errorf("list as of %d, of which steps are missing: %v", after, err)
		}
	}
	w.put("a", "5", "n1", "web") // 9
	if got := take(t, w.watch(cache.Selection{}, rev, false), 1); !slices.Equal(got, []string{"ADDED a/5@9"}) {
		t.Errorf("watch after %d: %v", rev, got)
	}
}

func TestSlowWatcherEnds(t *testing.T) {
	w := start(t, memory.New())
	slow := w.watch(cache.Selection{}, 1, false)
	for range 20_001 {
		w.put("a", "1", "n", "web")
	}
	w.fresh()
	if _, _, err := slow.Take(); !errors.Is(err, cache.ErrSlow) {
		t.Errorf("a watcher 20,001 events behind: %v", err)
	}
}

// TestAnyStart does things at random and holds that whoever starts a watch
// at any revision ends up with what the list at the end shows, having seen
// no revision twice and none out of order.
func TestAnyStart(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 2))
	w := start(t, memory.New())
	for range 300 {
		key := fmt.Sprint(dice.IntN(20))
		if dice.IntN(4) == 0 {
			w.delete("a/" + key)
		} else {
			w.put("a", key, fmt.Sprint("n", dice.IntN(3)), []string{"web", "db"}[dice.IntN(2)])
		}
	}
	w.fresh()
	for _, s := range []cache.Selection{{}, sel(t, "a", "app=web", ""), sel(t, "", "", "spec.nodeName=n1"), sel(t, "a", "app!=db", "spec.nodeName!=n2")} {
		want, l := w.list(cache.Query{Selection: s})
		for from := int64(1); from < l.Rev; from += 7 {
			state := map[string]int64{}
			past, _ := w.pods.List(t.Context(), cache.Query{Selection: s, Rev: from})
			for _, o := range past.Objects {
				state[o.Key] = o.Rev
			}
			ds, _, err := w.watch(s, from, false).Take()
			if err != nil {
				t.Fatal(err)
			}
			last := from
			for _, d := range ds {
				if d.Object.Rev <= last {
					t.Fatalf("revision %d after %d", d.Object.Rev, last)
				}
				last = d.Object.Rev
				if _, had := state[d.Object.Key]; had == (d.Type == cache.Added) {
					t.Fatalf("%s of %s, which was there: %v", d.Type, d.Object.Key, had)
				}
				if state[d.Object.Key] = d.Object.Rev; d.Type == cache.Deleted {
					delete(state, d.Object.Key)
				}
			}
			var got []string
			for key, rev := range state {
				got = append(got, fmt.Sprintf("%s@%d", key, rev))
			}
			slices.Sort(got)
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("from %d: %s", from, diff)
			}
		}
	}
}

// TestWaitForElsewhere waits for a revision that no object of ours has.
func TestWaitForElsewhere(t *testing.T) {
	w := start(t, memory.New())
	rev := w.commit(registry.Op{Key: "/elsewhere", Value: []byte("x")})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := w.cache.Wait(ctx, rev); err != nil {
		t.Error(err)
	}
	cancel()
	if err := w.cache.Wait(ctx, rev+1); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for the future ended with %v", err)
	}
}
