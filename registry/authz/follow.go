package authz

import (
	"context"
	"errors"

	"github.com/knarr-dev/knarr/registry/cache"
)

// A follower hands over what has changed of one kind since it was last asked:
// nothing runs in between, and what is then known is what the cache has.
type follower struct {
	kind *cache.Kind
	put  func(o *cache.Object) error // an object is there, or is another than before
	drop func(o *cache.Object)       // an object is gone
	wipe func()                      // all objects are to be forgotten

	w *cache.Watcher
}

// behind reports whether there is something to hand over.
func (f *follower) behind() bool { return f.w == nil || len(f.w.Ready()) > 0 }

// catchUp hands over what has changed. An object that cannot be read is left
// out and told of, once.
func (f *follower) catchUp(ctx context.Context) (errs []error) {
	if f.w == nil {
		return f.begin(ctx)
	}
	select {
	case <-f.w.Ready():
	default:
		return nil
	}
	events, _, err := f.w.Take()
	if err != nil {
		// More has changed than the cache keeps for us: start anew.
		f.w.Close()
		return f.begin(ctx)
	}
	for _, e := range events {
		if e.Type == cache.Deleted {
			f.drop(e.Object)
		} else if err := f.put(e.Object); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func (f *follower) begin(ctx context.Context) (errs []error) {
	w, err := f.kind.Watch(ctx, cache.Selection{}, 0, true)
	if err != nil {
		f.w = nil
		return []error{err}
	}
	f.wipe()
	f.w = w
	for _, o := range w.Initial {
		if err := f.put(o); err != nil {
			errs = append(errs, err)
		}
	}
	w.Initial = nil // not needed any more, and there may be many
	return errs
}

// followers are followers of several kinds.
type followers []*follower

func (fs followers) behind() bool {
	for _, f := range fs {
		if f.behind() {
			return true
		}
	}
	return false
}

func (fs followers) catchUp(ctx context.Context) error {
	var errs []error
	for _, f := range fs {
		errs = append(errs, f.catchUp(ctx)...)
	}
	return errors.Join(errs...)
}

// Close ends the following.
func (fs followers) close() {
	for _, f := range fs {
		if f.w != nil {
			f.w.Close()
			f.w = nil
		}
	}
}
