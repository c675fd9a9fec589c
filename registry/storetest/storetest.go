// Package storetest is what every registry.Store must do, as tests.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knarr-dev/knarr/registry"
)

// Run tests the stores that open returns, an empty one at each call.
func Run(t *testing.T, open func(t *testing.T) registry.Store) {
	for name, test := range map[string]func(*testing.T, registry.Store){
		"create, replace, delete":  write,
		"all or nothing":           transaction,
		"list by pages":            list,
		"list the past":            past,
		"watch":                    watch,
		"watch from the past":      watchPast,
		"watch what is compacted":  watchCompacted,
		"progress of a quiet key":  progress,
		"keys that end":            expire,
		"a watch ends when told":   watchEnds,
		"revisions count commits":  revisions,
		"a check writes nothing":   check,
		"get what is not there":    getNothing,
		"a cancelled commit fails": cancelled,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func put(t *testing.T, s registry.Store, key, value string) int64 {
	t.Helper()
	rev, err := s.Commit(t.Context(), registry.Op{Key: key, Old: registry.Unchecked, Value: []byte(value)})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func write(t *testing.T, s registry.Store) {
	ctx := t.Context()
	op := registry.Op{Key: "/a/1", Value: []byte("one")}
	first, err := s.Commit(ctx, op)
	if err != nil {
		t.Fatal(err)
	}
	var conflict *registry.Conflict
	if _, err := s.Commit(ctx, op); !errors.As(err, &conflict) || string(conflict.Have.Value) != "one" || conflict.Have.Rev != first {
		t.Fatalf("created twice: %v", err)
	}
	op.Old, op.Value = first, []byte("two")
	second, err := s.Commit(ctx, op)
	if err != nil || second <= first {
		t.Fatalf("replaced at %d after %d: %v", second, first, err)
	}
	got, err := s.Get(ctx, "/a/1")
	if err != nil || string(got.Value) != "two" || got.Rev != second {
		t.Fatalf("got %v: %v", got, err)
	}
	if _, err := s.Commit(ctx, registry.Op{Key: "/a/1", Old: first}); !errors.As(err, &conflict) {
		t.Fatalf("deleted a revision that was replaced: %v", err)
	}
	if _, err := s.Commit(ctx, registry.Op{Key: "/a/1", Old: second}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, "/a/1"); !errors.Is(err, registry.ErrNotFound) {
		t.Fatalf("after delete: %v", err)
	}
	if _, err := s.Commit(ctx, registry.Op{Key: "/a/1", Old: second}); !errors.As(err, &conflict) || conflict.Have != nil {
		t.Fatalf("deleted twice: %v", err)
	}
}

func transaction(t *testing.T, s registry.Store) {
	put(t, s, "/a/2", "there")
	_, err := s.Commit(t.Context(),
		registry.Op{Key: "/a/1", Value: []byte("x")},
		registry.Op{Key: "/a/2", Value: []byte("x")})
	var conflict *registry.Conflict
	if !errors.As(err, &conflict) || conflict.Key != "/a/2" {
		t.Fatalf("commit over an existing key: %v", err)
	}
	if _, err := s.Get(t.Context(), "/a/1"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("half a commit was written: %v", err)
	}
}

func check(t *testing.T, s registry.Store) {
	rev := put(t, s, "/a/1", "x")
	if _, err := s.Commit(t.Context(), registry.Op{Key: "/a/1", Old: rev, Check: true}, registry.Op{Key: "/a/2", Value: []byte("y")}); err != nil {
		t.Fatal(err)
	}
	if got, _ := s.Get(t.Context(), "/a/1"); got.Rev != rev {
		t.Errorf("a check moved its key from %d to %d", rev, got.Rev)
	}
	var conflict *registry.Conflict
	if _, err := s.Commit(t.Context(), registry.Op{Key: "/a/1", Old: rev + 1, Check: true}, registry.Op{Key: "/a/3", Value: []byte("y")}); !errors.As(err, &conflict) {
		t.Errorf("a check that fails let the rest pass: %v", err)
	}
}

func keys(p registry.Page) (keys []string) {
	for _, r := range p.Records {
		keys = append(keys, r.Key+"="+string(r.Value))
	}
	return keys
}

func list(t *testing.T, s registry.Store) {
	for _, k := range []string{"/a/3", "/b/1", "/a/1", "/a/2", "/A/1"} {
		put(t, s, k, "v")
	}
	page, err := s.List(t.Context(), registry.Query{Prefix: "/a/", Limit: 2})
	if diff := cmp.Diff([]string{"/a/1=v", "/a/2=v"}, keys(page)); diff != "" || err != nil || !page.More {
		t.Fatalf("first page, more %v: %v %s", page.More, err, diff)
	}
	put(t, s, "/a/4", "late")
	page, err = s.List(t.Context(), registry.Query{Prefix: "/a/", From: "/a/2\x00", Rev: page.Rev})
	if diff := cmp.Diff([]string{"/a/3=v"}, keys(page)); diff != "" || err != nil || page.More {
		t.Fatalf("second page, more %v: %v %s", page.More, err, diff)
	}
}

func past(t *testing.T, s registry.Store) {
	put(t, s, "/a/1", "one")
	then := put(t, s, "/a/2", "two")
	put(t, s, "/a/1", "changed")
	put(t, s, "/a/3", "new")
	if _, err := s.Commit(t.Context(), registry.Op{Key: "/a/2", Old: then}); err != nil {
		t.Fatal(err)
	}
	page, err := s.List(t.Context(), registry.Query{Prefix: "/a/", Rev: then})
	if diff := cmp.Diff([]string{"/a/1=one", "/a/2=two"}, keys(page)); diff != "" || err != nil || page.Rev != then {
		t.Fatalf("as of %d (says %d): %v %s", then, page.Rev, err, diff)
	}
	now, err := s.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Compact(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if _, err := s.List(t.Context(), registry.Query{Prefix: "/a/", Rev: then}); !errors.Is(err, registry.ErrCompacted) {
		t.Errorf("after compaction: %v", err)
	}
	if _, err := s.List(t.Context(), registry.Query{Prefix: "/a/", Rev: now + 100}); !errors.Is(err, registry.ErrFuture) {
		t.Errorf("the future: %v", err)
	}
}

// follow watches until n changes were told and returns them as text.
func follow(t *testing.T, s registry.Store, w registry.Watch, n int) (told []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := errors.New("enough")
	err := s.Watch(ctx, w, func(b registry.Batch) error {
		for _, c := range b.Changes {
			line := fmt.Sprintf("%s=%s", c.Key, c.Value)
			if c.Value == nil {
				line = c.Key + " gone"
			}
			if c.Prev != nil {
				line += " was " + string(c.Prev.Value)
			}
			told = append(told, line)
			if b.Rev < c.Rev {
				t.Errorf("batch up to %d has a change at %d", b.Rev, c.Rev)
			}
		}
		if len(told) >= n {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		t.Errorf("watch ended after %v: %v", told, err)
	}
	return told
}

func watch(t *testing.T, s registry.Store) {
	after, err := s.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan []string)
	go func() { told <- follow(t, s, registry.Watch{Prefix: "/a/", After: after}, 3) }()
	rev := put(t, s, "/a/1", "one")
	put(t, s, "/b/1", "elsewhere")
	if _, err := s.Commit(t.Context(), registry.Op{Key: "/a/1", Old: rev}); err != nil {
		t.Fatal(err)
	}
	put(t, s, "/a/2", "two")
	if diff := cmp.Diff([]string{"/a/1=one", "/a/1 gone", "/a/2=two"}, <-told); diff != "" {
		t.Error(diff)
	}
}

func watchPast(t *testing.T, s registry.Store) {
	put(t, s, "/a/1", "before")
	after := put(t, s, "/a/2", "two")
	rev := put(t, s, "/a/1", "after")
	if _, err := s.Commit(t.Context(), registry.Op{Key: "/a/1", Old: rev}, registry.Op{Key: "/a/3", Value: []byte("three")}); err != nil {
		t.Fatal(err)
	}
	got := follow(t, s, registry.Watch{Prefix: "/a/", After: after, Prev: true}, 3)
	if diff := cmp.Diff([]string{"/a/1=after was before", "/a/1 gone was after", "/a/3=three"}, got); diff != "" {
		t.Error(diff)
	}
}

func watchCompacted(t *testing.T, s registry.Store) {
	first := put(t, s, "/a/1", "x")
	put(t, s, "/a/1", "y")
	last := put(t, s, "/a/1", "z")
	if err := s.Compact(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	err := s.Watch(t.Context(), registry.Watch{Prefix: "/a/", After: first - 1}, func(registry.Batch) error { return nil })
	var compacted *registry.CompactedError
	if !errors.As(err, &compacted) || !errors.Is(err, registry.ErrCompacted) || compacted.Rev != last {
		t.Errorf("watch from before compaction at %d: %v", last, err)
	}
}

func progress(t *testing.T, s registry.Store) {
	after := put(t, s, "/a/1", "x")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	target := put(t, s, "/b/1", "elsewhere")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	go func() {
		for ctx.Err() == nil {
			<-tick.C
			if err := s.Progress(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	}()
	done := errors.New("enough")
	err := s.Watch(ctx, registry.Watch{Prefix: "/a/", After: after}, func(b registry.Batch) error {
		if b.Rev >= target {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		t.Errorf("no progress to %d: %v", target, err)
	}
}

func expire(t *testing.T, s registry.Store) {
	after, err := s.Commit(t.Context(), registry.Op{Key: "/a/1", Value: []byte("x"), TTL: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/a/1 gone"}, follow(t, s, registry.Watch{Prefix: "/a/", After: after}, 1)); diff != "" {
		t.Error(diff)
	}
}

func watchEnds(t *testing.T, s registry.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Watch(ctx, registry.Watch{Prefix: "/a/"}, func(registry.Batch) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled watch ended with %v", err)
	}
}

func revisions(t *testing.T, s registry.Store) {
	before, err := s.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rev, err := s.Commit(t.Context(), registry.Op{Key: "/a/1", Value: []byte("x")}, registry.Op{Key: "/a/2", Value: []byte("y")})
	if err != nil || rev != before+1 {
		t.Errorf("a commit of two after %d is %d: %v", before, rev, err)
	}
	if now, err := s.Revision(t.Context()); err != nil || now != rev {
		t.Errorf("revision is %d after commit %d: %v", now, rev, err)
	}
}

func getNothing(t *testing.T, s registry.Store) {
	if _, err := s.Get(t.Context(), "/nothing"); !errors.Is(err, registry.ErrNotFound) {
		t.Error(err)
	}
}

func cancelled(t *testing.T, s registry.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Commit(ctx, registry.Op{Key: "/a/1", Value: []byte("x")}); !errors.Is(err, context.Canceled) {
		t.Errorf("commit of a cancelled caller: %v", err)
	}
}
