package loop

import (
	"container/heap"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/sched"
)

const (
	// A pod that was turned down waits so long at least, twice as long after
	// each time, before an event can have it tried again.
	firstBackoff = time.Second
	lastBackoff  = 10 * time.Second

	// A pod that no event has woken for so long is tried all the same, should
	// an event have been misjudged.
	patience = 5 * time.Minute
)

// A place is where in the queue a pod is.
type place string

// The places, as metrics name them.
const (
	active  place = "active"        // to be tried
	backoff place = "backoff"       // to be tried after a while, or when nothing else is to do
	penalty place = "error"         // to be tried after a while
	pool    place = "unschedulable" // until something happens
	held    place = "gated"         // not to be tried yet
	flight  place = "flight"        // being tried or bound
)

// An item is a pod in the queue.
type item struct {
	sched.Waiting

	place  place
	at     int // in the pile of its place
	number int // by the order of coming in

	came     time.Time // first
	tries    int
	refusals int       // tries after which it was turned down
	errors   int       // tries in a row that went wrong
	until    time.Time // the end of its backoff
	by       sched.Set // who turned it down last

	evicting bool // others, which must be done before it is tried again
	woken    bool // while it could not be tried
}

// A queue holds the pods that have no node. It is for one goroutine.
type queue struct {
	plugins []sched.Erased
	items   map[types.UID]*item
	piles   map[place]*pile
	wakers  map[sched.Change]sched.Set // who may let in whom after a change
	count   int

	// entered is told of each pod that enters a place, and why.
	entered func(p place, event string)
}

func newQueue(plugins []sched.Erased) *queue {
	q := &queue{plugins: plugins, items: map[types.UID]*item{}, piles: map[place]*pile{}, wakers: map[sched.Change]sched.Set{}, entered: func(place, string) {}}
	before := func(sched.Waiting, sched.Waiting) bool { return false }
	for i := range plugins {
		if plugins[i].Before != nil {
			before = plugins[i].Before
		}
		for _, c := range plugins[i].Wakes {
			q.wakers[c] = q.wakers[c].With(i)
		}
	}
	first := func(a, b *item) bool {
		if before(a.Waiting, b.Waiting) {
			return true
		}
		return a.number < b.number && !before(b.Waiting, a.Waiting)
	}
	soonest := func(a, b *item) bool {
		if !a.until.Equal(b.until) {
			return a.until.Before(b.until)
		}
		return first(a, b)
	}
	none := func(_, _ *item) bool { return false }
	q.piles[active] = &pile{before: first}
	q.piles[backoff] = &pile{before: soonest}
	q.piles[penalty] = &pile{before: soonest}
	q.piles[pool] = &pile{before: none}
	q.piles[held] = &pile{before: none}
	q.piles[flight] = &pile{before: none}
	return q
}

// put takes in a pod, or a new version of one.
func (q *queue) put(p *sched.Pod, now time.Time) {
	it := q.items[p.UID]
	if it == nil {
		q.count++
		it = &item{number: q.count, came: now, Waiting: sched.Waiting{Pod: p, Since: now}}
		q.items[p.UID] = it
		q.enter(it, active, "PodAdd")
		return
	}
	old := it.Pod
	it.Pod = p
	switch it.place {
	case held:
		if !q.hold(p.Pod) {
			it.Since = now
			q.enter(it, active, "PodSchedulingGatesEliminated")
		}
	case pool:
		// Only the pod itself has changed. Who turned it down may think better
		// of it, unless it is but its status.
		if asksAnew(old.Pod, p.Pod) {
			q.requeue(it, now, "PodUpdate")
		}
	case flight:
		it.woken = it.woken || asksAnew(old.Pod, p.Pod)
	case active, backoff, penalty:
		heap.Fix(q.piles[it.place], it.at)
	}
}

// remove forgets a pod, if it is there.
func (q *queue) remove(uid types.UID) {
	if it := q.items[uid]; it != nil {
		q.leave(it)
		delete(q.items, uid)
	}
}

// pop returns the next pod to try, nil where there is none. One that waits
// for the end of its backoff is tried rather than none; but not one for which
// the last try has gone wrong.
func (q *queue) pop(now time.Time) *item {
	q.flush(now)
	for _, from := range []place{active, backoff} {
		if p := q.piles[from]; p.Len() > 0 {
			it := p.items[0]
			q.move(it, flight)
			it.tries++
			it.woken = false
			return it
		}
	}
	return nil
}

// flush lets go those that have waited long enough.
func (q *queue) flush(now time.Time) {
	for _, from := range []place{backoff, penalty} {
		for p := q.piles[from]; p.Len() > 0 && !p.items[0].until.After(now); {
			q.enter(p.items[0], active, "BackoffComplete")
		}
	}
}

// next is how long it takes until a pod can be tried that cannot be now.
func (q *queue) next(now time.Time) time.Duration {
	wait := patience
	for _, from := range []place{backoff, penalty} {
		if p := q.piles[from]; p.Len() > 0 {
			wait = min(wait, p.items[0].until.Sub(now))
		}
	}
	return max(0, wait)
}

// refuse returns a pod that was turned down.
func (q *queue) refuse(it *item, by sched.Set, now time.Time) {
	it.refusals++
	it.errors = 0
	it.by, it.Since = by, now
	it.until = now.Add(delay(it.refusals))
	q.move(it, pool)
	q.entered(pool, "ScheduleAttemptFailure")
	if it.woken && !it.evicting {
		q.requeue(it, now, "ScheduleAttemptFailure")
	}
}

// fail returns a pod for which something went wrong.
func (q *queue) fail(it *item, now time.Time) {
	it.errors++
	it.by, it.Since = 0, now
	it.until = now.Add(delay(it.errors))
	q.enter(it, penalty, "ScheduleAttemptFailure")
}

// delay grows with the number of vain tries.
func delay(tries int) time.Duration {
	d := firstBackoff
	for range tries - 1 {
		if d *= 2; d >= lastBackoff {
			return lastBackoff
		}
	}
	return d
}

// wake has those tried again that the event may help.
func (q *queue) wake(e sched.Event, now time.Time, helps func(plugin int, p *sched.Pod) bool) {
	wakers := q.wakers[e.Change]
	if wakers == 0 {
		return
	}
	var up []*item
	for _, it := range q.piles[pool].items {
		if it.by&wakers == 0 {
			continue
		}
		for i := range q.plugins {
			if (it.by & wakers).Has(i) && helps(i, it.Pod) {
				up = append(up, it)
				break
			}
		}
	}
	for _, it := range up {
		q.requeue(it, now, string(e.Change))
	}
}

// late has those tried again that have waited for nothing for too long.
func (q *queue) late(now time.Time) {
	var up []*item
	for _, it := range q.piles[pool].items {
		if now.Sub(it.Since) > patience {
			up = append(up, it)
		}
	}
	for _, it := range up {
		q.requeue(it, now, "UnschedulableTimeout")
	}
}

// requeue has a pod tried as soon as its backoff allows.
func (q *queue) requeue(it *item, now time.Time, event string) {
	switch {
	case it.evicting:
		it.woken = true
	case it.until.After(now):
		q.enter(it, backoff, event)
	default:
		q.enter(it, active, event)
	}
}

// enter moves a pod to a place where it waits to be tried, unless it is not to
// be tried at all.
func (q *queue) enter(it *item, to place, event string) {
	if q.hold(it.Pod.Pod) {
		to = held
	}
	q.move(it, to)
	q.entered(to, event)
}

func (q *queue) hold(p *corev1.Pod) bool {
	for i := range q.plugins {
		if hold := q.plugins[i].Hold; hold != nil && hold(p) {
			return true
		}
	}
	return false
}

func (q *queue) move(it *item, to place) {
	q.leave(it)
	it.place = to
	heap.Push(q.piles[to], it)
}

func (q *queue) leave(it *item) {
	if it.place != "" {
		heap.Remove(q.piles[it.place], it.at)
	}
}

// A pile is a heap of items.
type pile struct {
	items  []*item
	before func(a, b *item) bool
}

func (p *pile) Len() int           { return len(p.items) }
func (p *pile) Less(i, j int) bool { return p.before(p.items[i], p.items[j]) }
func (p *pile) Swap(i, j int) {
	p.items[i], p.items[j] = p.items[j], p.items[i]
	p.items[i].at, p.items[j].at = i, j
}

// Push appends an item, for package heap.
func (p *pile) Push(x any) {
	it := x.(*item)
	it.at = len(p.items)
	p.items = append(p.items, it)
}

// Pop takes off the last item, for package heap.
func (p *pile) Pop() any {
	last := len(p.items) - 1
	it := p.items[last]
	p.items[last] = nil
	p.items = p.items[:last]
	return it
}
