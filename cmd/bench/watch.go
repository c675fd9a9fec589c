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

// behind is how many events a watcher may be behind before the others wait.
const behind = 4096

// follow hands what is put below plainWatch to all watchers.
func (h *plainHandler) follow(ctx context.Context) error {
	rev, err := h.store.Revision(ctx)
	if err != nil {
		return err
	}
	return h.store.Watch(ctx, registry.Watch{Prefix: plainWatch, After: rev}, func(b registry.Batch) error {
		h.crowd.mu.Lock()
		defer h.crowd.mu.Unlock()
		for _, c := range b.Changes {
			for w := range h.crowd.watchers {
				select {
				case w <- c.Value:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		return nil
	})
}

// watch streams what follow hands on.
func (h *plainHandler) watch(w http.ResponseWriter, r *http.Request) {
	events := make(chan []byte, behind)
	h.crowd.mu.Lock()
	if h.crowd.watchers == nil {
		h.crowd.watchers = map[chan []byte]bool{}
	}
	h.crowd.watchers[events] = true
	h.crowd.mu.Unlock()
	defer func() {
		h.crowd.mu.Lock()
		delete(h.crowd.watchers, events)
		h.crowd.mu.Unlock()
	}()
	out := http.NewResponseController(w)
	for {
		if out.Flush() != nil {
			return
		}
		select {
		case e := <-events:
			if _, err := w.Write(e); err != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
		for more := true; more; {
			select {
			case e := <-events:
				if _, err := w.Write(e); err != nil {
					return
				}
			default:
				more = false
			}
		}
	}
}
