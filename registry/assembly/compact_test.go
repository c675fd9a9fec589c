package assembly

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/memory"
)

// TestCompact keeps an interval of history, and no more than two.
func TestCompact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		store := memory.New()
		put := func() int64 {
			rev, err := store.Commit(ctx, registry.Op{Key: "/registry/a", Old: registry.Unchecked, Value: []byte("v")})
			if err != nil {
				t.Fatal(err)
			}
			return rev
		}
		known := func(rev int64) bool {
			_, err := store.List(ctx, registry.Query{Prefix: "/registry/", Rev: rev})
			if err != nil && !errors.Is(err, registry.ErrCompacted) {
				t.Fatal(err)
			}
			return err == nil
		}
		first := put()
		ended := make(chan error, 1)
		var told atomic.Int64
		go func() { ended <- compact(ctx, store, time.Minute, told.Store) }()
		synctest.Wait()
		second := put()
		put()
		time.Sleep(59 * time.Second)
		if !known(first) {
			t.Error("forgotten within an interval")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !known(second) {
			t.Error("what was written within the interval is forgotten")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if known(second) {
			t.Error("not forgotten after two intervals")
		}
		if told.Load() < second {
			t.Errorf("told of %d, forgotten is %d", told.Load(), second)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
