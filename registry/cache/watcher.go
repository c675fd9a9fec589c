package cache

import (
	"context"
	"errors"
	"slices"
	"sync"
	"unique"

	"github.com/knarr-dev/knarr/registry"
)

// What ends a Watcher.
var (
	ErrSlow = errors.New("watcher is too slow")
	ErrOver = errors.New("the kind has changed or is gone")
)

// maxPending is how many events may wait for one watcher. They are shared
// with all others, so that a slow one costs a pointer an event.
const maxPending = 20_000

// A topic is what events are sorted by, so that an event concerns only few
// watchers though there are many: one namespace, one object, or one value of
// the indexed field; the zero topic is everything.
type topic struct {
	by    byte // 'n', 'o' or 'f'
	value string
}

// topics are those of an object.
func (k *Kind) topics(o *Object) []topic {
	ts := []topic{{}, {'o', o.Key}}
	if ns := o.Namespace(); ns != "" {
		ts = append(ts, topic{'n', ns})
	}
	if k.main >= 0 {
		ts = append(ts, topic{'f', o.fields[k.main].Value()})
	}
	return ts
}

// topic is the narrowest that a selection lies in.
func (k *Kind) topic(s *Selection) topic {
	if name, exact := s.exact("metadata.name"); exact {
		if s.Namespace != "" {
			return topic{'o', s.Namespace + "/" + name}
		}
		if ns, exact := s.exact("metadata.namespace"); exact && ns != "" {
			return topic{'o', ns + "/" + name}
		}
		if k.Cluster {
			return topic{'o', name}
		}
	}
	if k.main >= 0 {
		if v, exact := s.exact(k.fields[k.main]); exact {
			return topic{'f', unique.Make(v).Value()}
		}
	}
	if s.Namespace != "" {
		return topic{'n', s.Namespace}
	}
	return topic{}
}

// A Delivery is one event as a watcher is to see it.
type Delivery struct {
	Type   string
	Object *Object
}

// A Watcher receives the events of a selection. It must be closed.
type Watcher struct {
	// Initial are the objects that were there when the watch began, if they
	// were asked for, and Rev the revision of that moment.
	Initial []*Object
	Rev     int64

	kind  *Kind
	sel   Selection
	topic topic
	after int64 // the client knows what has happened up to here

	mu      sync.Mutex
	pending []Delivery
	err     error
	over    bool // nothing comes behind what is pending
	wake    chan struct{}
}

// Watch begins a watch: of what happens after revision after, or with
// initial set of the present objects and all that happens to them.
func (k *Kind) Watch(ctx context.Context, sel Selection, after int64, initial bool) (*Watcher, error) {
	k = k.latest()
	w := &Watcher{kind: k, sel: sel, topic: k.topic(&sel), wake: make(chan struct{}, 1)}
	if initial {
		k.begin(w)
		return w, nil
	}
	if err := k.cache.history(ctx); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if after < k.log.oldest {
		return nil, &registry.CompactedError{Rev: k.log.oldest}
	}
	w.Rev, w.after = after, after
	for _, e := range k.log.events[k.log.after(after):] {
		w.offer(e)
	}
	k.register(w)
	return w, nil
}

// begin registers w and gives it the present objects.
func (k *Kind) begin(w *Watcher) {
	k.mu.Lock()
	w.Rev = max(k.rev, k.cache.rev.Load())
	k.register(w)
	found, ok := k.picked(&w.sel)
	if ok {
		k.mu.Unlock()
		w.Initial = found
		return
	}
	tree := k.tree.Clone()
	k.mu.Unlock()
	w.Initial = k.walk(Query{Selection: w.sel}, tree, w.Rev).Objects
}

// history waits until the events from before the start are there.
func (c *Cache) history(ctx context.Context) error {
	select {
	case <-c.remembers:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *Kind) register(w *Watcher) {
	ws := k.watchers[w.topic]
	if ws == nil {
		ws = map[*Watcher]struct{}{}
		k.watchers[w.topic] = ws
	}
	ws[w] = struct{}{}
	if k.over {
		w.end()
	}
}

// end makes w end behind what is pending.
func (w *Watcher) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.rouse()
}

// rouse makes Ready be sent to, once.
func (w *Watcher) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Close ends the watch.
func (w *Watcher) Close() {
	w.kind.mu.Lock()
	defer w.kind.mu.Unlock()
	ws := w.kind.watchers[w.topic]
	delete(ws, w)
	if len(ws) == 0 {
		delete(w.kind.watchers, w.topic)
	}
}

// tell offers an event to all whom it may concern. The caller holds mu.
func (k *Kind) tell(e *Event) {
	ts := k.topics(e.Object)
	if e.Prev != nil {
		for _, t := range k.topics(e.Prev) {
			if !slices.Contains(ts, t) {
				ts = append(ts, t)
			}
		}
	}
	for _, t := range ts {
		for w := range k.watchers[t] {
			w.offer(e)
		}
	}
}

// offer queues e if it matters to the selection. The caller holds kind.mu.
func (w *Watcher) offer(e *Event) {
	if e.Rev <= w.after {
		return // the client is ahead of this cache
	}
	d := Delivery{Type: e.Type, Object: e.Object}
	if !w.sel.everything() || w.sel.Namespace != "" {
		is := e.Type != Deleted && w.kind.matches(&w.sel, e.Object)
		was := e.Prev != nil && w.kind.matches(&w.sel, e.Prev)
		switch {
		case is && !was:
			d.Type = Added
		case was && !is:
			if e.left == nil {
				e.left = e.Prev.at(e.Rev)
			}
			d = Delivery{Type: Deleted, Object: e.left}
		case !is:
			return
		}
	}
	w.mu.Lock()
	if len(w.pending) >= maxPending {
		w.err, w.pending = ErrSlow, nil
	}
	if w.err == nil {
		w.pending = append(w.pending, d)
	}
	w.mu.Unlock()
	w.rouse()
}

// Ready is sent to when Take has something to give.
func (w *Watcher) Ready() <-chan struct{} { return w.wake }

// Take returns what has happened since the last call, and a revision up to
// which that is everything.
func (w *Watcher) Take() ([]Delivery, int64, error) {
	rev := w.kind.cache.rev.Load() // before the queue is read: all up to here is in it
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, 0, w.err
	}
	ds := w.pending
	w.pending = nil
	if w.over {
		if len(ds) == 0 {
			return nil, 0, ErrOver
		}
		w.rouse() // for the end
	}
	return ds, rev, nil
}
