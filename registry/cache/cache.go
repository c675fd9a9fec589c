// Package cache keeps the current objects of every kind as the bytes that
// the store holds, with an index, the history of some minutes and those who
// watch. One watch on the store feeds it all, so that its revision is the
// store's for all kinds at once. It never writes and decides nothing about
// requests; package rest does.
package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/knarr-dev/knarr/registry"
)

// Root is the prefix of all keys.
const Root = "/registry/"

// A Cache follows a store. Use New, Add the kinds, then Run. While it runs
// kinds come and go by Put, Renew and Remove.
type Cache struct {
	// Found, if set, is shown everything in the store before it is kept, so
	// that kinds that the store itself tells of can be added.
	Found func(records []registry.Record)

	store registry.Store
	table atomic.Pointer[map[string]*Kind] // by path under Root; what is in it never changes
	turn  sync.Mutex                       // held to change the table, and while events are applied

	rev       atomic.Int64 // everything up to here has been applied
	compacted atomic.Int64 // nothing before this is to be shown
	loaded    chan struct{}
	remembers chan struct{} // closed when the history from before the start is in

	waiters waiters
	newest  newest
	texts   texts
}

// New returns a cache of what is in store.
func New(store registry.Store) *Cache {
	c := &Cache{store: store, loaded: make(chan struct{}), remembers: make(chan struct{})}
	c.table.Store(&map[string]*Kind{})
	return c
}

// kinds are all kinds by their path under Root.
func (c *Cache) kinds() map[string]*Kind { return *c.table.Load() }

// Loaded is closed when the cache can be read.
func (c *Cache) Loaded() <-chan struct{} { return c.loaded }

// Rev is the revision up to which the cache has seen everything.
func (c *Cache) Rev() int64 { return c.rev.Load() }

// kind finds the kind that the object at key is of, and the object's key in it.
func (c *Cache) kind(key string) (*Kind, string) {
	path := strings.TrimPrefix(key, Root)
	// Most kinds are one word: pods/ns/name. A few are two: services/specs/ns/name.
	first := strings.IndexByte(path, '/')
	if first < 0 {
		return nil, ""
	}
	kinds := c.kinds()
	if k := kinds[path[:first]]; k != nil {
		return k, path[first+1:]
	}
	second := strings.IndexByte(path[first+1:], '/')
	if second < 0 {
		return nil, ""
	}
	second += first + 1
	return kinds[path[:second]], path[second+1:]
}

// retry is how long Run waits before it asks a store that failed again.
const retry = 200 * time.Millisecond

// Run loads what is in the store and follows it until ctx ends. A store that
// fails is asked again, and nothing is lost or told twice.
func (c *Cache) Run(ctx context.Context) error {
	for {
		start, err := c.load(ctx)
		if err == nil {
			c.advance(start)
			close(c.loaded)
			go c.remember(ctx, start)
			break
		}
		if !pause(ctx, err, "load from store") {
			return ctx.Err()
		}
	}
	for {
		err := c.store.Watch(ctx, registry.Watch{Prefix: Root, After: c.rev.Load()}, c.told)
		if errors.Is(err, registry.ErrCompacted) {
			err = c.resync(ctx)
		}
		if err != nil && !pause(ctx, err, "watch store") {
			return ctx.Err()
		}
	}
}

// pause waits before another try and reports whether there is to be one.
func pause(ctx context.Context, err error, doing string) bool {
	if ctx.Err() == nil {
		slog.WarnContext(ctx, doing, "err", err)
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(retry):
		return true
	}
}

// pageSize is how many records are read from the store at once.
const pageSize = 10_000

// load fills the kinds with what is in the store and returns its revision.
func (c *Cache) load(ctx context.Context) (rev int64, err error) {
	records, rev, err := c.all(ctx, Root)
	if err != nil {
		return 0, err
	}
	if c.Found != nil {
		c.Found(records)
	}
	for _, r := range records {
		k, key := c.kind(r.Key)
		if k == nil {
			continue
		}
		obj, err := k.object(key, r.Value, r.Rev)
		if err != nil {
			slog.ErrorContext(ctx, "an object in the store cannot be read", "key", r.Key, "err", err)
			continue
		}
		k.put(obj)
	}
	for _, k := range c.kinds() {
		k.start(rev)
	}
	return rev, nil
}

// all reads every record under prefix, all as of one revision.
func (c *Cache) all(ctx context.Context, prefix string) (records []registry.Record, rev int64, err error) {
	q := registry.Query{Prefix: prefix, Limit: pageSize}
	for {
		page, err := c.store.List(ctx, q)
		if err != nil {
			return nil, 0, err
		}
		records = append(records, page.Records...)
		if !page.More {
			return records, page.Rev, nil
		}
		q.Rev, q.From = page.Rev, page.Records[len(page.Records)-1].Key+"\x00"
	}
}

// told applies what the store tells.
func (c *Cache) told(b registry.Batch) error {
	c.turn.Lock()
	defer c.turn.Unlock()
	for rest := b.Changes; len(rest) > 0; {
		k, _ := c.kind(rest[0].Key)
		n := 1
		for n < len(rest) {
			if next, _ := c.kind(rest[n].Key); next != k {
				break
			}
			n++
		}
		if k != nil {
			k.apply(c.events(k, rest[:n]))
		}
		rest = rest[n:]
	}
	c.advance(b.Rev)
	return nil
}

// events makes events of kind k from changes. What cannot be read is logged
// and left out: one bad object must not keep all others from being seen.
func (c *Cache) events(k *Kind, changes []registry.Change) []*Event {
	events := make([]*Event, 0, len(changes))
	for _, ch := range changes {
		_, key := c.kind(ch.Key)
		e := &Event{Rev: ch.Rev, key: key}
		if ch.Value != nil {
			obj, err := k.object(key, ch.Value, ch.Rev)
			if err != nil {
				slog.Error("an object in the store cannot be read", "key", ch.Key, "err", err)
				continue
			}
			e.Object = obj
		}
		if ch.Prev != nil {
			prev, err := k.object(key, ch.Prev.Value, ch.Prev.Rev)
			if err != nil {
				slog.Error("an object in the store cannot be read", "key", ch.Key, "err", err)
			}
			e.Prev = prev
		}
		events = append(events, e)
	}
	return events
}

func (c *Cache) advance(rev int64) {
	if rev > c.rev.Load() {
		c.rev.Store(rev)
		c.waiters.reached(rev)
	}
}

// historyEvents bounds the history that is read again at the start.
const historyEvents = 20_000

// span is how many revisions of history one watch reads. etcd sends no more
// at once to a watch that is behind, and lets it wait for the next.
const span = 1000

// remember reads the changes from before revision start that the store still
// knows, so that a client who watched a server that is gone can go on here.
func (c *Cache) remember(ctx context.Context, start int64) {
	defer close(c.remembers)
	after := max(0, start-historyEvents)
	for attempt := 0; after < start && attempt < 3; attempt++ {
		past, err := c.past(ctx, after, start)
		var compacted *registry.CompactedError
		switch {
		case err == nil:
			for _, k := range c.kinds() {
				k.remember(past[k], after, start)
			}
			return
		case errors.As(err, &compacted):
			after = compacted.Rev
		default:
			slog.WarnContext(ctx, "read history from store", "err", err)
		}
	}
}

// past is what happened to each kind after revision after, up to start. It is
// read in spans at the same time.
func (c *Cache) past(ctx context.Context, after, start int64) (map[*Kind][]*Event, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	go c.prod(ctx)
	spans := make([]map[*Kind][]*Event, (start-after+span-1)/span)
	work, ctx := errgroup.WithContext(ctx)
	for i := range spans {
		first := after + int64(i)*span
		work.Go(func() (err error) {
			spans[i], err = c.between(ctx, first, min(first+span, start))
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return nil, err
	}
	past := map[*Kind][]*Event{}
	for _, s := range spans {
		for k, events := range s {
			past[k] = append(past[k], events...)
		}
	}
	return past, nil
}

// between reads what happened after revision after, up to last.
func (c *Cache) between(ctx context.Context, after, last int64) (map[*Kind][]*Event, error) {
	events := map[*Kind][]*Event{}
	reached := errors.New("the last revision is reached")
	err := c.store.Watch(ctx, registry.Watch{Prefix: Root, After: after, Prev: true}, func(b registry.Batch) error {
		for _, ch := range b.Changes {
			if k, _ := c.kind(ch.Key); k != nil && ch.Rev <= last {
				events[k] = append(events[k], c.events(k, []registry.Change{ch})...)
			}
		}
		if b.Rev >= last {
			return reached
		}
		return nil
	})
	if !errors.Is(err, reached) {
		return nil, err
	}
	return events, nil
}

// prod makes running watches tell how far they are, until ctx ends.
func (c *Cache) prod(ctx context.Context) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := c.store.Progress(ctx); err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "ask store for progress", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// resync catches up with a store that has compacted what was missed. What
// changed is told in the order of its last change; what was deleted counts
// as deleted now, because when it was is not known any more.
func (c *Cache) resync(ctx context.Context) error {
	records, rev, err := c.all(ctx, Root)
	if err != nil {
		return fmt.Errorf("read all anew: %w", err)
	}
	var changes []registry.Change
	for _, r := range records {
		k, key := c.kind(r.Key)
		if k == nil {
			continue
		}
		if have := k.Get(key); have == nil || have.Rev != r.Rev {
			changes = append(changes, registry.Change{Key: r.Key, Value: r.Value, Rev: r.Rev})
		}
	}
	for path, k := range c.kinds() {
		for _, key := range k.keys() {
			full := Root + path + "/" + key
			if _, there := slices.BinarySearchFunc(records, full, func(r registry.Record, key string) int { return cmp.Compare(r.Key, key) }); !there {
				changes = append(changes, registry.Change{Key: full, Rev: rev})
			}
		}
	}
	slices.SortStableFunc(changes, func(a, b registry.Change) int { return cmp.Compare(a.Rev, b.Rev) })
	c.forget(rev) // the steps between are not known: nobody may begin among them
	return c.told(registry.Batch{Changes: changes, Rev: rev})
}

// Compacted says that history up to revision rev is not to be shown any more.
func (c *Cache) Compacted(rev int64) {
	c.compacted.Store(rev)
	c.forget(rev)
}

// forget drops all kinds' history up to revision rev.
func (c *Cache) forget(rev int64) {
	c.turn.Lock() // else a kind could take another's place, with its history
	defer c.turn.Unlock()
	for _, k := range c.kinds() {
		k.forget(rev)
	}
}

// waiters wait for the cache to reach a revision.
type waiters struct {
	mu   sync.Mutex
	list []waiter
}

type waiter struct {
	rev  int64
	done chan struct{}
}

func (ws *waiters) reached(rev int64) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.list = slices.DeleteFunc(ws.list, func(w waiter) bool {
		if w.rev > rev {
			return false
		}
		close(w.done)
		return true
	})
}

// Wait waits until the cache has seen everything up to revision rev.
func (c *Cache) Wait(ctx context.Context, rev int64) error {
	w := waiter{rev: rev, done: make(chan struct{})}
	c.waiters.mu.Lock()
	if c.rev.Load() >= rev {
		c.waiters.mu.Unlock()
		return nil
	}
	c.waiters.list = append(c.waiters.list, w)
	c.waiters.mu.Unlock()
	// Mostly the write that made rev is on its way here. If it was none of
	// ours the store must be asked to say how far it is.
	wait := time.NewTimer(5 * time.Millisecond)
	defer wait.Stop()
	for {
		select {
		case <-w.done:
			return nil
		case <-ctx.Done():
			c.waiters.mu.Lock()
			c.waiters.list = slices.DeleteFunc(c.waiters.list, func(o waiter) bool { return o.done == w.done })
			c.waiters.mu.Unlock()
			return ctx.Err()
		case <-wait.C:
			if err := c.store.Progress(ctx); err != nil && ctx.Err() == nil {
				return err
			}
			wait.Reset(50 * time.Millisecond)
		}
	}
}

// Fresh waits until the cache shows everything that any client has been told
// was written. Callers that wait at once share one question to the store.
func (c *Cache) Fresh(ctx context.Context) error {
	rev, err := c.newest.ask(ctx, c.store)
	if err != nil {
		return err
	}
	return c.Wait(ctx, rev)
}

// newest shares questions for the newest revision: who comes while one is on
// its way waits for the next, since the answer on its way may be too old.
type newest struct {
	mu      sync.Mutex
	running bool
	next    *question
}

type question struct {
	done chan struct{}
	rev  int64
	err  error
}

func (n *newest) ask(ctx context.Context, store registry.Store) (int64, error) {
	n.mu.Lock()
	if n.next == nil {
		n.next = &question{done: make(chan struct{})}
	}
	q := n.next
	if !n.running {
		n.running = true
		go n.run(context.WithoutCancel(ctx), store)
	}
	n.mu.Unlock()
	select {
	case <-q.done:
		return q.rev, q.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// run asks as long as there is anybody who wants to know.
func (n *newest) run(ctx context.Context, store registry.Store) {
	for {
		n.mu.Lock()
		q := n.next
		n.next = nil
		n.running = q != nil
		n.mu.Unlock()
		if q == nil {
			return
		}
		q.rev, q.err = store.Revision(ctx)
		close(q.done)
	}
}
