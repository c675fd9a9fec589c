package cache

import "sort"

// The types of events.
const (
	Added    = "ADDED"
	Modified = "MODIFIED"
	Deleted  = "DELETED"
)

// An Event is one change of one object.
type Event struct {
	Type   string
	Rev    int64
	Object *Object // as it is now; where Deleted, its last state at Rev
	Prev   *Object // as it was, nil where Added

	key  string
	left *Object // Prev at Rev, for those whose selection it leaves
}

// minHistory is how many bytes of history a kind keeps at least; beyond, it
// keeps no more than its objects themselves weigh.
const minHistory = 4 << 20

// A log is the events of a kind since some revision, oldest first.
type log struct {
	events []*Event
	oldest int64 // every event after this revision is in events
	size   int   // bytes that only the log holds
}

// weight is what an event keeps alive that is not current any more.
func weight(e *Event) int {
	if e.Prev == nil {
		return 0
	}
	return len(e.Prev.Raw)
}

func (l *log) append(e *Event) {
	l.events = append(l.events, e)
	l.size += weight(e)
}

func (l *log) prepend(past []*Event, oldest int64) {
	for _, e := range past {
		l.size += weight(e)
	}
	l.events = append(past, l.events...)
	l.oldest = oldest
}

// trim drops the oldest events until the log holds at most limit bytes. It
// never parts events of one revision.
func (l *log) trim(limit int) {
	n := 0
	for n < len(l.events) && l.size > limit {
		l.size -= weight(l.events[n])
		n++
	}
	if n > 0 {
		l.drop(n)
	}
}

// forget drops the events up to revision rev.
func (l *log) forget(rev int64) {
	n := l.after(rev)
	for _, e := range l.events[:n] {
		l.size -= weight(e)
	}
	l.oldest = max(l.oldest, rev)
	if n > 0 {
		l.drop(n)
	}
}

func (l *log) drop(n int) {
	l.oldest = max(l.oldest, l.events[n-1].Rev)
	// A copy, so that what is dropped is not held by the array.
	l.events = append([]*Event(nil), l.events[n:]...)
}

// after is the index of the first event after revision rev.
func (l *log) after(rev int64) int {
	return sort.Search(len(l.events), func(i int) bool { return l.events[i].Rev > rev })
}
