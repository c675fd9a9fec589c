// Package memory is a registry.Store in memory, for tests: it keeps all that
// was ever written until it is compacted, and nothing over the process's end.
package memory

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/knarr-dev/knarr/registry"
)

// A Store is a registry.Store. Use New.
type Store struct {
	mu        sync.Mutex
	rev       int64
	compacted int64
	keys      map[string]registry.Record
	log       []registry.Change // with Prev set, oldest first
	changed   chan struct{}     // closed when log grows or progress is asked for
	asked     int64             // how often progress was asked for
}

// New returns an empty store. Like etcd's its first revision is 1.
func New() *Store {
	return &Store{rev: 1, keys: map[string]registry.Record{}, changed: make(chan struct{})}
}

// Get is part of registry.Store.
func (s *Store) Get(_ context.Context, key string) (registry.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.keys[key]
	if !ok {
		return registry.Record{}, registry.ErrNotFound
	}
	return r, nil
}

// List is part of registry.Store.
func (s *Store) List(_ context.Context, q registry.Query) (registry.Page, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys, rev, err := s.at(q.Rev)
	if err != nil {
		return registry.Page{}, err
	}
	page := registry.Page{Rev: rev}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if !strings.HasPrefix(key, q.Prefix) || key < q.From {
			continue
		}
		if q.Limit > 0 && int64(len(page.Records)) == q.Limit {
			page.More = true
			break
		}
		page.Records = append(page.Records, keys[key])
	}
	return page, nil
}

// at is what stood in the store at revision rev, and that revision.
func (s *Store) at(rev int64) (map[string]registry.Record, int64, error) {
	switch {
	case rev == 0 || rev == s.rev:
		return s.keys, s.rev, nil
	case rev > s.rev:
		return nil, 0, registry.ErrFuture
	case rev < s.compacted:
		return nil, 0, &registry.CompactedError{Rev: s.compacted}
	}
	keys := maps.Clone(s.keys)
	for _, c := range slices.Backward(s.log) {
		if c.Rev <= rev {
			break
		}
		if c.Prev == nil {
			delete(keys, c.Key)
		} else {
			keys[c.Key] = *c.Prev
		}
	}
	return keys, rev, nil
}

// Commit is part of registry.Store.
func (s *Store) Commit(ctx context.Context, ops ...registry.Op) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, op := range ops {
		have, ok := s.keys[op.Key]
		switch {
		case op.Old == registry.Unchecked || have.Rev == op.Old:
		case ok:
			return 0, &registry.Conflict{Key: op.Key, Have: &have}
		default:
			return 0, &registry.Conflict{Key: op.Key}
		}
	}
	rev := s.rev + 1
	for _, op := range ops {
		if !op.Check {
			s.write(op, rev)
		}
	}
	s.wake()
	return s.rev, nil
}

// write does op as part of revision rev.
func (s *Store) write(op registry.Op, rev int64) {
	c := registry.Change{Key: op.Key, Value: op.Value, Rev: rev}
	if have, ok := s.keys[op.Key]; ok {
		c.Prev = &have
	} else if op.Value == nil {
		return
	}
	s.rev = rev
	if op.Value == nil {
		delete(s.keys, op.Key)
	} else {
		s.keys[op.Key] = registry.Record{Key: op.Key, Value: op.Value, Rev: rev}
	}
	s.log = append(s.log, c)
	if op.TTL > 0 {
		time.AfterFunc(op.TTL, func() { s.expire(op.Key, rev) })
	}
}

// expire deletes key if it is still as revision rev wrote it.
func (s *Store) expire(key string, rev int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys[key].Rev == rev {
		s.write(registry.Op{Key: key}, s.rev+1)
		s.wake()
	}
}

func (s *Store) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Watch is part of registry.Store.
func (s *Store) Watch(ctx context.Context, w registry.Watch, tell func(registry.Batch) error) error {
	after, asked := w.After, int64(0)
	for {
		s.mu.Lock()
		if after+1 < s.compacted {
			s.mu.Unlock()
			return &registry.CompactedError{Rev: s.compacted}
		}
		batch := registry.Batch{Rev: s.rev, Changes: s.since(after, w)}
		progress := asked != s.asked
		asked = s.asked
		changed := s.changed
		s.mu.Unlock()
		if len(batch.Changes) > 0 || progress {
			if err := tell(batch); err != nil {
				return err
			}
		}
		after = max(after, batch.Rev)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func (s *Store) since(after int64, w registry.Watch) (changes []registry.Change) {
	from, _ := slices.BinarySearchFunc(s.log, after+1, func(c registry.Change, rev int64) int { return int(c.Rev - rev) })
	for _, c := range s.log[from:] {
		if !strings.HasPrefix(c.Key, w.Prefix) {
			continue
		}
		if !w.Prev {
			c.Prev = nil
		}
		changes = append(changes, c)
	}
	return changes
}

// Progress is part of registry.Store.
func (s *Store) Progress(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	s.wake()
	return nil
}

// Revision is part of registry.Store.
func (s *Store) Revision(context.Context) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rev, nil
}

// Compact is part of registry.Store.
func (s *Store) Compact(_ context.Context, rev int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rev > s.rev {
		return registry.ErrFuture
	}
	s.compacted = max(s.compacted, rev)
	s.log = slices.DeleteFunc(s.log, func(c registry.Change) bool { return c.Rev <= rev })
	return nil
}
