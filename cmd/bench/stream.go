package main

import (
	"context"
	"net/http"
	"sync"

	"github.com/knarr-dev/knarr/registry"
)

// crowdOf are the watchers of the plain handler.
type crowdOf struct {
	mu       sync.Mutex
	watchers map[chan []byte]bool
}

func (c *crowdOf) join(events chan []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watchers == nil {
		c.watchers = map[chan []byte]bool{}
	}
	c.watchers[events] = true
}

func (c *crowdOf) leave(events chan []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.watchers, events)
}

// tell hands events to all, in one piece. A watcher that is slow lets the
// others wait: here all are as fast.
func (c *crowdOf) tell(ctx context.Context, changes []registry.Change) error {
	var events []byte
	for _, ch := range changes {
		events = append(events, ch.Value...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.watchers {
		select {
		case w <- events:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// follow hands what is put below plainWatch to all watchers.
func (h *plainHandler) follow(ctx context.Context) error {
	rev, err := h.store.Revision(ctx)
	if err != nil {
		return err
	}
	return h.store.Watch(ctx, registry.Watch{Prefix: plainWatch, After: rev}, func(b registry.Batch) error { return h.crowd.tell(ctx, b.Changes) })
}

// watch streams what follow hands on.
func (h *plainHandler) watch(w http.ResponseWriter, r *http.Request) {
	events := make(chan []byte, 2*inFlight) // more than there are at once, so that one that ends blocks nobody
	h.crowd.join(events)
	defer h.crowd.leave(events)
	out := http.NewResponseController(w)
	for out.Flush() == nil {
		select {
		case e := <-events:
			if _, err := w.Write(e); err != nil {
				return // the watcher is gone
			}
		case <-r.Context().Done():
			return
		}
	}
}
