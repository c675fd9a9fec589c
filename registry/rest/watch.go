package rest

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/cache"
)

// A Stream is a watch that has begun.
type Stream struct {
	*cache.Watcher

	Bookmarks bool // the client wants to be told of progress
	Marked    bool // the initial objects are to end with an annotated bookmark
}

// Watch begins a watch. The options have been validated.
func (k *Kind) Watch(ctx context.Context, sel cache.Selection, opts *metav1.ListOptions) (*Stream, error) {
	s := &Stream{Bookmarks: opts.AllowWatchBookmarks}
	initial := opts.SendInitialEvents != nil && *opts.SendInitialEvents
	s.Marked = initial && opts.AllowWatchBookmarks
	unset := opts.ResourceVersion == "" || opts.ResourceVersion == "0"
	if unset && opts.SendInitialEvents == nil {
		initial = true
	}
	var err error
	var after int64
	if !unset {
		if after, err = parseVersion(opts.ResourceVersion); err != nil {
			return nil, err
		}
	}
	switch {
	case initial && opts.ResourceVersion == "" && opts.SendInitialEvents == nil:
		// As upstream: a watch from nowhere starts with what is at hand.
	case initial && !unset:
		err = k.reach(ctx, after)
	case initial && opts.ResourceVersion == "", !initial && unset:
		err = k.await(ctx, "")
		after = k.service.Cache.Rev()
	}
	if err != nil {
		return nil, err
	}
	s.Watcher, err = k.Objects.Watch(ctx, sel, after, initial)
	if compacted, ok := errors.AsType[*registry.CompactedError](err); ok {
		return nil, apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", after, compacted.Rev))
	}
	if err != nil {
		return nil, k.unserved(err)
	}
	if s.Initial, err = k.ready(s.Initial); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}
