package engine

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/ctrl"
)

// errEnough ends a plan that has nothing more to do, though not all of it was done.
var errEnough = errors.New("plan ends early")

// together is the most actions of one run under way at a time.
const together = 64

// patience is how long an action may take that is under way when the engine
// is told to stop.
const patience = 10 * time.Second

// carryOut does actions in order, runs of the same pace at that pace. It
// stops at the first failure, and between two actions when ctx ends.
func (r *runner) carryOut(ctx context.Context, st *state, do []ctrl.Action) error {
	for len(do) > 0 {
		if err := ctx.Err(); err != nil {
			return errEnough
		}
		n, batch := stretch(do), 1
		switch do[0].Pace {
		case ctrl.AtOnce:
			batch = n
		case ctrl.SlowStart, ctrl.InTurn:
		}
		for run := do[:n]; len(run) > 0; batch *= 2 {
			m := min(batch, len(run))
			if err := r.atOnce(ctx, st, run[:m]); err != nil {
				return err
			}
			run = run[m:]
		}
		do = do[n:]
	}
	return nil
}

// stretch is how many actions at the head of do go as one run.
func stretch(do []ctrl.Action) int {
	n := 1
	for n < len(do) && do[0].Pace != ctrl.InTurn && do[n].Pace == do[0].Pace && do[n].Verb == do[0].Verb {
		n++
	}
	return n
}

// atOnce does all of run together. Of the failures, the first one's Else runs.
func (r *runner) atOnce(ctx context.Context, st *state, run []ctrl.Action) error {
	if len(run) == 1 {
		return r.orElse(ctx, st, run[0], r.act(ctx, st, run[0]))
	}
	errs := make([]error, len(run))
	var all sync.WaitGroup
	slots := make(chan struct{}, together)
	for i, a := range run {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			errs[i] = r.act(ctx, st, a)
		})
	}
	all.Wait()
	for i, err := range errs {
		if err != nil {
			return r.orElse(ctx, st, run[i], err)
		}
	}
	return nil
}

func (r *runner) orElse(ctx context.Context, st *state, a ctrl.Action, err error) error {
	if err == nil || errors.Is(err, errEnough) || a.Else == nil {
		return err
	}
	cause := err
	for errors.Unwrap(cause) != nil {
		cause = errors.Unwrap(cause)
	}
	if more := r.carryOut(ctx, st, a.Else(cause)); more != nil && !errors.Is(more, errEnough) {
		return errors.Join(err, more)
	}
	return err
}

// act does one action, and what follows on its success.
func (r *runner) act(ctx context.Context, st *state, a ctrl.Action) error {
	if !r.ctrl.Mends(a) {
		return fmt.Errorf("%v: %s does not declare this among its Writes", a, r.ctrl.Name)
	}
	switch a.Verb {
	case ctrl.Event, ctrl.Warn:
		reason, message, _ := strings.Cut(a.Note, ": ")
		r.door.tell(a, reason, message)
		return nil
	case ctrl.Create, ctrl.Update, ctrl.UpdateStatus, ctrl.Patch, ctrl.Delete, ctrl.Check, ctrl.CheckGone:
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	done, err := r.door.do(limited, a)
	r.metrics.acted(r, a, err)
	switch {
	case err == nil:
		r.owe(st, a, done)
	case apierrors.IsNotFound(err) && (a.Verb == ctrl.Delete || a.Verb == ctrl.Patch):
	case apierrors.IsNotFound(err) && a.Verb != ctrl.Create,
		apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return errEnough // what it was about is going; its event will tell
	default:
		return fmt.Errorf("%v: %w", a, err)
	}
	if a.Then != nil && done != nil {
		return r.carryOut(ctx, st, a.Then(done))
	}
	return nil
}

// owe notes what the world must show before the next look at the key.
func (r *runner) owe(st *state, a ctrl.Action, done apis.Object) {
	src := r.view[reflect.TypeOf(a.Obj)]
	if src == nil {
		return
	}
	d := debt{src: src}
	switch a.Verb {
	case ctrl.Create, ctrl.Update, ctrl.UpdateStatus, ctrl.Patch:
		d.rev, _ = strconv.ParseInt(done.GetResourceVersion(), 10, 64) // 0 is paid at once
		if d.rev == 0 {
			return
		}
	case ctrl.Delete:
		d.gone = a.Obj
	case ctrl.Check, ctrl.CheckGone, ctrl.Event, ctrl.Warn:
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	st.owed = append(st.owed, d)
}
