package cache

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"strings"

	"github.com/knarr-dev/knarr/registry/wire"
)

// set puts a kind into the table, or takes away what is there.
func (c *Cache) set(path string, k *Kind) {
	kinds := maps.Clone(c.kinds())
	if k == nil {
		delete(kinds, path)
	} else {
		kinds[path] = k
	}
	c.table.Store(&kinds)
}

// As is the object as one of wire kind w that reads like text.
func (o *Object) As(w *wire.Kind, text []byte) *Object {
	return &Object{Object: wire.Object{Kind: w, Raw: text, Rev: o.Rev}, Key: o.Key, labels: o.labels, fields: o.fields}
}

// latest is what stands in the place of k now, k itself if it does.
func (k *Kind) latest() *Kind {
	for {
		next := k.next.Load()
		if next == nil {
			return k
		}
		k = next
	}
}

// Removed reports whether the kind is kept no more, by this name or another.
func (k *Kind) Removed() bool {
	k = k.latest()
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.over
}

// Put makes a running cache keep one more kind, and returns when its objects
// have been read.
func (c *Cache) Put(ctx context.Context, w *wire.Kind, cfg Config) (*Kind, error) {
	k := c.newKind(w, cfg)
	k.loading = true
	c.turn.Lock()
	c.set(cfg.Path, k)
	c.turn.Unlock()
	records, rev, err := c.all(ctx, Root+cfg.Path+"/")
	if err != nil {
		c.Remove(k)
		return nil, fmt.Errorf("read %s: %w", cfg.Path, err)
	}
	var objs []*Object
	for _, r := range records {
		obj, err := k.object(strings.TrimPrefix(r.Key, Root+cfg.Path+"/"), r.Value, r.Rev)
		if err != nil {
			slog.ErrorContext(ctx, "an object in the store cannot be read", "key", r.Key, "err", err)
			continue
		}
		objs = append(objs, obj)
	}
	k.start(rev)
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, o := range objs {
		k.put(o)
	}
	k.loading = false
	k.happen(k.late)
	k.late = nil
	return k, nil
}

// Renew puts a kind in the place of another one that has changed: in how its
// objects are read, or by what they are selected. Objects and history stay.
// Who watched is ended, and may go on with the new one where it was.
func (c *Cache) Renew(old *Kind, w *wire.Kind, cfg Config) *Kind {
	c.turn.Lock()
	defer c.turn.Unlock()
	k := c.newKind(w, cfg)
	old.mu.Lock()
	defer old.mu.Unlock()
	k.rev, k.since, k.log = old.rev, old.since, log{oldest: old.log.oldest, size: old.log.size}
	made := map[*Object]*Object{}
	anew := func(o *Object) *Object {
		if o == nil {
			return nil
		}
		if made[o] == nil {
			made[o] = k.again(o)
		}
		return made[o]
	}
	old.tree.Ascend(func(o *Object) bool { k.put(anew(o)); return true })
	for _, e := range old.log.events {
		k.log.events = append(k.log.events, &Event{Type: e.Type, Rev: e.Rev, Object: anew(e.Object), Prev: anew(e.Prev), key: e.key})
	}
	old.next.Store(k)
	old.close()
	c.set(cfg.Path, k)
	return k
}

// again is an object of the kind that k replaces as one of k.
func (k *Kind) again(o *Object) *Object {
	n := &Object{Object: wire.Object{Kind: k.Kind, Raw: o.Raw, Rev: o.Rev}, Key: o.Key, labels: o.labels}
	if len(k.fields) == 0 {
		return n
	}
	obj, err := n.Decode()
	if err != nil {
		slog.Error("an object cannot be read anew", "key", o.Key, "err", err)
		obj = k.New() // it can be selected by nothing
	}
	n.fields = k.fieldsOf(obj)
	return n
}

// Remove ends the keeping of a kind. Who watches is ended.
func (c *Cache) Remove(k *Kind) {
	c.turn.Lock()
	defer c.turn.Unlock()
	k = k.latest()
	if c.kinds()[k.Path] == k {
		c.set(k.Path, nil)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.close()
}

// close ends all watchers, and all that are to come. The caller holds mu.
func (k *Kind) close() {
	k.over = true
	for _, ws := range k.watchers {
		for w := range ws {
			w.end()
		}
	}
	k.tree.Ascend(func(o *Object) bool { k.cache.texts.drop(o); return true })
}
