package assembly

import (
	"context"
	"log/slog"
	"time"

	"github.com/knarr-dev/knarr/registry"
)

// compactEvery is how often the store forgets, as upstream.
const compactEvery = 5 * time.Minute

// compact has the store forget, again and again, what was the past already an
// interval ago, so that it does not grow for ever. Each server does so for
// itself: none forgets what is younger than an interval. Told learns of it, and
// must not show any more what the store cannot either.
func compact(ctx context.Context, store registry.Store, every time.Duration, told func(rev int64)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var old int64
	for {
		if old > 0 {
			if err := store.Compact(ctx, old); err == nil {
				told(old)
			} else if ctx.Err() == nil {
				slog.WarnContext(ctx, "compact the store", "rev", old, "err", err)
			}
		}
		rev, err := store.Revision(ctx)
		if err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "ask for the store's revision", "err", err)
		}
		old = rev
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
