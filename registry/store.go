// Package registry serves the resources that apis declares. It holds the
// vocabulary that its parts share: the store, and what goes wrong with it.
//
// The parts are cut by concern, never by kind: cache keeps what the store
// holds as bytes, rest does the verbs, sub the subresources that act, admit
// the admission, server the HTTP.
package registry

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// What a Store returns for callers to branch on.
var (
	ErrNotFound    = errors.New("key not found")
	ErrCompacted   = errors.New("revision has been compacted")
	ErrFuture      = errors.New("revision has not been reached")
	ErrUnavailable = errors.New("store is unavailable")
)

// A Record is what stands at one key.
type Record struct {
	Key   string
	Value []byte
	Rev   int64 // of the write that put it there
}

// A Conflict is the error of a Commit that found another revision at a key
// than it was to replace. Nothing was written.
type Conflict struct {
	Key  string
	Have *Record // what stands there, nil for nothing
}

func (c *Conflict) Error() string {
	if c.Have == nil {
		return fmt.Sprintf("%s is gone", c.Key)
	}
	return fmt.Sprintf("%s stands at revision %d", c.Key, c.Have.Rev)
}

// Unchecked as the Old of an Op lets it replace whatever stands at its key.
const Unchecked = -1

// An Op is one write of a Commit.
type Op struct {
	Key   string
	Old   int64         // the revision to replace: 0 for none, or Unchecked
	Value []byte        // nil deletes the key
	TTL   time.Duration // after which the store deletes the key; 0 for never
	Check bool          // write nothing, but hold Old true
}

// A Change is one key's part in a write that a Watch tells of.
type Change struct {
	Key   string
	Value []byte  // nil where the key was deleted
	Prev  *Record // what stood there before, if it was asked for and there was anything
	Rev   int64
}

// A Page is a part of the keys under a prefix, in their order, as of Rev.
type Page struct {
	Records []Record
	Rev     int64
	More    bool
}

// A Query asks for a Page.
type Query struct {
	Prefix string
	From   string // the first key wanted, where it is not the prefix's first
	Limit  int64  // 0 for all
	Rev    int64  // 0 for the newest
}

// A Batch is what a Watch tells at once: all changes since the last batch up
// to and with revision Rev. One without changes tells of progress only.
type Batch struct {
	Changes []Change
	Rev     int64
}

// A Store keeps bytes by key and counts its writes: each commit has the next
// revision. A read is of the newest state that any client has been told of.
type Store interface {
	Get(ctx context.Context, key string) (Record, error)
	List(ctx context.Context, q Query) (Page, error)

	// Commit does all of ops or none and returns the revision it made. Where
	// an Old does not hold the error is a *Conflict for the first such op.
	Commit(ctx context.Context, ops ...Op) (int64, error)

	// Watch calls tell with every batch of changes under prefix that came
	// after revision after, in order, until ctx ends, tell fails or the
	// store does. With prev set a Change has its Prev.
	Watch(ctx context.Context, w Watch, tell func(Batch) error) error

	// Progress makes running watches tell how far they are.
	Progress(ctx context.Context) error

	// Revision returns the newest revision.
	Revision(ctx context.Context) (int64, error)

	// Compact forgets what was before revision rev.
	Compact(ctx context.Context, rev int64) error
}

// A Watch says which changes are wanted.
type Watch struct {
	Prefix string
	After  int64
	Prev   bool
}

// A CompactedError is an ErrCompacted that says since when there is history.
type CompactedError struct{ Rev int64 }

func (e *CompactedError) Error() string { return fmt.Sprintf("%v: oldest is %d", ErrCompacted, e.Rev) }

// Is makes the error an ErrCompacted.
func (e *CompactedError) Is(err error) bool { return err == ErrCompacted }
