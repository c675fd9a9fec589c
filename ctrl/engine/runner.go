package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/ctrl"
)

// A key that fails is tried again after 5 ms, then twice as long each time.
const (
	firstRetry = 5 * time.Millisecond
	lastRetry  = 1000 * time.Second
)

// lag is the longest that a key waits for the world to show its last writes
// before it looks again by itself, for a store that moved on by a bookmark.
const lag = time.Second

// A runner runs one controller.
type runner struct {
	ctrl    *ctrl.Erased
	door    doer
	view    view
	metrics *metrics
	queue   workqueue.TypedRateLimitingInterface[ctrl.Key]

	mu   sync.Mutex
	keys map[ctrl.Key]*state
}

// A doer carries out actions. A door does so at an API server.
type doer interface {
	// do returns the object as it is afterwards, or nil where nothing is to
	// be said of it.
	do(ctx context.Context, a ctrl.Action) (apis.Object, error)
	tell(a ctrl.Action, reason, message string)
	close()
}

// A state is what a runner remembers of a key between two looks.
type state struct {
	uid  types.UID
	memo any
	owed []debt
}

func (e *Engine) newRunner(c *ctrl.Erased) (*runner, error) {
	r := newRunner(c, newDoor(c, e.Client(c.Account)), e.metrics)
	for _, rd := range c.Reads {
		s, err := e.source(rd)
		if err != nil {
			return nil, err
		}
		r.view[rd.Kind] = s
		if rd.Wakes != nil {
			s.read(reader{r, rd.Wakes})
		}
	}
	return r, nil
}

func newRunner(c *ctrl.Erased, d doer, m *metrics) *runner {
	// Without a name: the queue's own metrics tick twice a second, ours cost nothing between scrapes.
	limit := workqueue.NewTypedItemExponentialFailureRateLimiter[ctrl.Key](firstRetry, lastRetry)
	r := &runner{
		ctrl: c, door: d, view: view{}, metrics: m, keys: map[ctrl.Key]*state{},
		queue: workqueue.NewTypedRateLimitingQueue(limit),
	}
	m.runs(r)
	return r
}

// run works until ctx ends. The first look waits for the caches.
func (r *runner) run(ctx context.Context) {
	var synced []cache.DoneChecker
	for _, s := range r.view {
		synced = append(synced, s.registration.HasSyncedChecker())
	}
	if !cache.WaitFor(ctx, "", synced...) {
		return
	}
	if r.ctrl.Kind == nil {
		r.wake(ctrl.Key{})
	}
	slog.InfoContext(ctx, "controller runs", "controller", r.ctrl.Name)
	var workers sync.WaitGroup
	for range r.ctrl.Workers {
		workers.Go(func() { r.work(ctx) })
	}
	<-ctx.Done()
	r.queue.ShutDown()
	workers.Wait()
	r.door.close()
	r.metrics.stopped(r)
}

func (r *runner) wake(key ctrl.Key) {
	r.metrics.woken(r, key)
	r.queue.Add(key)
}

func (r *runner) work(ctx context.Context) {
	for {
		key, closed := r.queue.Get()
		if closed {
			return
		}
		r.one(ctx, key)
	}
}

func (r *runner) one(ctx context.Context, key ctrl.Key) {
	defer r.queue.Done(key)
	if ctx.Err() != nil {
		return
	}
	done := r.metrics.begin(r, key)
	after, err := r.look(ctx, key)
	done(err)
	if err != nil {
		level := slog.LevelWarn
		if apierrors.IsConflict(err) {
			level = slog.LevelDebug // somebody else wrote first: no news
		}
		slog.Log(ctx, level, "reconcile", "controller", r.ctrl.Name, "key", key, "err", err)
		r.queue.AddRateLimited(key)
		return
	}
	r.queue.Forget(key)
	if after > 0 {
		r.queue.AddAfter(key, after)
	}
}

// look decides about key once and does what was decided.
func (r *runner) look(ctx context.Context, key ctrl.Key) (after time.Duration, err error) {
	defer func() {
		if p := recover(); p != nil {
			r.metrics.panicked(r)
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	st := r.state(key)
	if st.owed = unpaid(st.owed); len(st.owed) > 0 {
		st.owed[0].src.wait(waiter{r, key})
		if st.owed = unpaid(st.owed); len(st.owed) > 0 { // none came in between
			r.metrics.stale(r)
			return lag, nil
		}
	}
	var obj apis.Object
	if r.ctrl.Kind != nil {
		if obj, _ = r.view[r.ctrl.Kind].get(key).(apis.Object); obj == nil {
			r.forget(key)
			return 0, nil
		}
		if obj.GetUID() != st.uid {
			st.uid, st.memo = obj.GetUID(), nil
		}
	}
	plan := r.ctrl.Decide(r.world(time.Now(), st.memo), obj)
	st.memo = plan.Memo
	if err := r.carryOut(ctx, st, plan.Do); err != nil && !errors.Is(err, errEnough) {
		return 0, err
	}
	return plan.After, nil
}

// state is used by one worker at a time: the queue gives a key to one only.
func (r *runner) state(key ctrl.Key) *state {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.keys[key]
	if st == nil {
		st = &state{}
		r.keys[key] = st
	}
	return st
}

func (r *runner) forget(key ctrl.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.keys, key)
}

func (r *runner) world(now time.Time, memo any) ctrl.World {
	return ctrl.World{Now: now, Memo: memo, Seen: r.view}
}

// A debt is a write that a source must show before the next look.
type debt struct {
	src  *source
	rev  int64 // the revision that the write made, 0 for a deletion
	gone apis.Object
}

func (d debt) paid() bool {
	if d.rev > 0 {
		return d.src.revision() >= d.rev
	}
	obj, _ := d.src.get(ctrl.KeyOf(d.gone)).(apis.Object)
	return obj == nil || obj.GetUID() != d.gone.GetUID() || obj.GetDeletionTimestamp() != nil
}

func unpaid(owed []debt) []debt {
	var left []debt
	for _, d := range owed {
		if !d.paid() {
			left = append(left, d)
		}
	}
	return left
}
