// Package encrypt keeps objects encrypted in the store, by the rules of an
// EncryptionConfiguration file. What it stores stock Kubernetes can read with
// the same file, and the other way round.
//
// The first provider of a resource encrypts, all of them decrypt. So a key is
// replaced by adding the new one behind the old on all servers, then moving
// it to the front, writing every object anew, and taking the old one away.
package encrypt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/knarr-dev/knarr/registry"
)

const (
	reloadEvery = 10 * time.Second // how often the file is looked at
	closeAfter  = 10 * time.Second // how long a plugin is kept that is not in the file any more
)

// A Store is a registry.Store whose values are encrypted in another. Use Open.
type Store struct {
	registry.Store

	file      string
	every     time.Duration // to look at the file; 0 for never
	resources Resources
	rules     atomic.Pointer[rules]

	mu   sync.Mutex
	text []byte // of the file that the rules are of
}

// Open returns a store whose values are encrypted in under as file says. With
// reload the file is read again when it changes, while Run runs.
func Open(under registry.Store, file string, resources Resources, reload bool) (*Store, error) {
	s := &Store{Store: under, file: file, resources: resources}
	if reload {
		s.every = reloadEvery
	}
	r, text, err := read(file)
	if err != nil {
		return nil, err
	}
	s.text = text
	s.rules.Store(r)
	return s, nil
}

func read(file string) (*rules, []byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, fmt.Errorf("read encryption configuration: %w", err)
	}
	c, err := parse(text)
	if err != nil {
		return nil, nil, fmt.Errorf("encryption configuration %s: %w", file, err)
	}
	r, err := newRules(c)
	if err != nil {
		return nil, nil, fmt.Errorf("encryption configuration %s: %w", file, err)
	}
	return r, text, nil
}

// Run asks KMS plugins how they are, and reads the file again when it
// changes, until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait() // they end when ctx does
	stop := s.start(ctx, &running)
	if s.every == 0 {
		<-ctx.Done()
		stop()
		return ctx.Err()
	}
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			stop()
			return ctx.Err()
		case <-tick.C:
		}
		changed, err := s.reload(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			slog.ErrorContext(ctx, "the encryption configuration stays as it was", "err", err)
		case changed:
			slog.InfoContext(ctx, "the encryption configuration has changed", "file", s.file)
			time.AfterFunc(closeAfter, stop) // what the old plugins are decrypting may end
			stop = s.start(ctx, &running)
		}
	}
}

// start runs the plugins of the present rules. They end by stop.
func (s *Store) start(ctx context.Context, running *sync.WaitGroup) (stop func()) {
	ctx, stop = context.WithCancel(ctx)
	for _, e := range s.rules.Load().plugins {
		running.Go(func() { e.run(ctx) })
	}
	return stop
}

// reload reads the file if it has changed. It is taken only if it is good and
// its plugins are well.
func (s *Store) reload(ctx context.Context) (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, err := os.ReadFile(s.file)
	if err != nil || bytes.Equal(text, s.text) {
		return false, err
	}
	r, text, err := read(s.file)
	if err != nil {
		return false, err
	}
	for _, e := range r.plugins {
		if err := e.check(ctx); err != nil {
			r.close()
			return false, err
		}
	}
	s.text = text
	s.rules.Store(r)
	return true, nil
}

// Ready waits until every plugin has been well once, so that values can be
// encrypted.
func (s *Store) Ready(ctx context.Context) error {
	for {
		err := s.check(ctx)
		if err == nil {
			return nil
		}
		slog.WarnContext(ctx, "values cannot be encrypted yet", "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func (s *Store) check(ctx context.Context) error {
	var errs []error
	for _, e := range s.rules.Load().plugins {
		errs = append(errs, e.check(ctx))
	}
	return errors.Join(errs...)
}

// Well is nil where all plugins were well when they were asked last.
func (s *Store) Well() error {
	var errs []error
	for _, e := range s.rules.Load().plugins {
		errs = append(errs, e.well())
	}
	return errors.Join(errs...)
}

// Stale reports whether what is stored at key would be encrypted with another
// key by now, so that a write of the same is to be done all the same.
func (s *Store) Stale(ctx context.Context, key string) (bool, error) {
	r, err := s.Store.Get(ctx, key)
	if err != nil {
		return false, err
	}
	_, stale, err := s.cipher(key).open(ctx, key, r.Value)
	return stale, err
}

// cipher is that of the value at key.
func (s *Store) cipher(key string) cipher {
	gr, ok := s.resources.resource(key)
	if !ok {
		return plain{}
	}
	return s.rules.Load().of(gr)
}

// opened is a value as it was before it was encrypted.
func (s *Store) opened(ctx context.Context, key string, stored []byte) ([]byte, error) {
	value, _, err := s.cipher(key).open(ctx, key, stored)
	if err != nil {
		return nil, fmt.Errorf("unable to transform key %q: %w", key, err)
	}
	return value, nil
}

// Get is part of registry.Store.
func (s *Store) Get(ctx context.Context, key string) (registry.Record, error) {
	r, err := s.Store.Get(ctx, key)
	if err != nil {
		return r, err
	}
	r.Value, err = s.opened(ctx, key, r.Value)
	return r, err
}

// List is part of registry.Store. It fails where a value cannot be
// decrypted: who is not told of an object would take it for deleted.
func (s *Store) List(ctx context.Context, q registry.Query) (registry.Page, error) {
	page, err := s.Store.List(ctx, q)
	if err != nil {
		return page, err
	}
	for i := range page.Records {
		r := &page.Records[i]
		if r.Value, err = s.opened(ctx, r.Key, r.Value); err != nil {
			return registry.Page{}, err
		}
	}
	return page, nil
}

// Commit is part of registry.Store.
func (s *Store) Commit(ctx context.Context, ops ...registry.Op) (int64, error) {
	ops = slices.Clone(ops)
	for i := range ops {
		op := &ops[i]
		if op.Check || op.Value == nil {
			continue
		}
		value, err := s.cipher(op.Key).seal(ctx, op.Key, op.Value)
		if err != nil {
			return 0, fmt.Errorf("encrypt %s: %w", op.Key, err)
		}
		op.Value = value
	}
	rev, err := s.Store.Commit(ctx, ops...)
	if c, ok := errors.AsType[*registry.Conflict](err); ok && c.Have != nil {
		have := *c.Have
		if have.Value, err = s.opened(ctx, have.Key, have.Value); err != nil {
			return 0, err
		}
		return 0, &registry.Conflict{Key: c.Key, Have: &have}
	}
	return rev, err
}

// Watch is part of registry.Store. Where values are wanted that were there
// before it is about the past: keys may be gone by which that was encrypted,
// so what cannot be decrypted is told as it is.
func (s *Store) Watch(ctx context.Context, w registry.Watch, tell func(registry.Batch) error) error {
	return s.Store.Watch(ctx, w, func(b registry.Batch) error {
		b.Changes = slices.Clone(b.Changes)
		for i := range b.Changes {
			c := &b.Changes[i]
			if c.Value != nil {
				value, err := s.opened(ctx, c.Key, c.Value)
				switch {
				case err == nil:
					c.Value = value
				case !w.Prev:
					return err
				}
			}
			if c.Prev != nil {
				prev := *c.Prev
				if value, err := s.opened(ctx, c.Key, prev.Value); err == nil {
					prev.Value = value
				}
				c.Prev = &prev
			}
		}
		return tell(b)
	})
}
