package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/knarr-dev/knarr/registry"
)

// How watches are measured.
const (
	watchers = 200
	batches  = 8                // commits on their way to the watchers at once
	inFlight = batches * maxOps // events of these
	steady   = 50               // events a second where their delay is measured
)

// A side is one of the two whose watches are compared.
type side struct {
	to   *endpoint
	call func(rev int64) call
	ops  []registry.Op // each commit of which is an event for all
}

// watch compares the API server with a plain handler that follows the same
// etcd and streams the same bytes. Pods are changed in etcd directly, so
// that writes cost the server nothing.
func (w *world) watch(ctx context.Context) ([]row, error) {
	sides, err := w.sides(ctx)
	if err != nil {
		return nil, err
	}
	var floods [2][]sample
	var delays [2][]float64
	for range w.runs {
		for i, s := range sides {
			flood, err := w.flood(ctx, s)
			if err != nil {
				return nil, err
			}
			delay, err := w.delay(ctx, s)
			if err != nil {
				return nil, err
			}
			floods[i], delays[i] = append(floods[i], flood), append(delays[i], delay.Seconds())
		}
	}
	of, limit := middle(delays[0]), middle(delays[1])
	ms := func(s float64) string { return fmt.Sprintf("%.1f ms", s*1e3) }
	return []row{
		rates(fmt.Sprintf("watch, %d watchers, events sent", watchers), median(floods[0]), median(floods[1]), wanted{least: .6, cpu: 1.8}),
		{what: fmt.Sprintf("watch, p99 delay at %d events a second", steady), measured: ms(of), limit: ms(limit), ratio: of / limit, wanted: wanted{most: 3}},
	}, nil
}

// sides are the API server and the plain handler.
func (w *world) sides(ctx context.Context) ([]side, error) {
	if err := w.fill(ctx, watched, maxOps); err != nil {
		return nil, err
	}
	page, err := w.store.List(ctx, registry.Query{Prefix: "/registry/pods/" + watched + "/"})
	if err != nil {
		return nil, err
	}
	var api, plain []registry.Op
	for i, r := range page.Records {
		obj, err := podKind.Object(r.Value, r.Rev)
		if err != nil {
			return nil, err
		}
		api = append(api, registry.Op{Key: r.Key, Old: registry.Unchecked, Value: r.Value})
		plain = append(plain, registry.Op{Key: fmt.Sprint(plainWatch, i), Old: registry.Unchecked, Value: obj.AppendEventFrame(nil, "MODIFIED")})
	}
	return []side{
		{w.api, func(rev int64) call {
			return call{path: fmt.Sprintf("/api/v1/namespaces/%s/pods?watch=1&resourceVersion=%d", watched, rev), asked: protoMedia + ";stream=watch"}
		}, api},
		{w.plain, func(int64) call { return call{path: "/watch"} }, plain},
	}, nil
}

// An audience watches one side.
type audience struct {
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

// gather starts watchers, which call seen for each event, with the number of
// the watcher and of the event. It returns once all are connected, with a
// context that ends when one of them does.
func (w *world) gather(ctx context.Context, s side, seen func(watcher, event int)) (context.Context, *audience, error) {
	rev, err := w.store.Revision(ctx)
	if err != nil {
		return nil, nil, err
	}
	a := &audience{}
	ctx, a.cancel = context.WithCancelCause(ctx)
	for i := range watchers {
		client := s.to.client()
		r, err := s.to.request(ctx, s.call(rev))
		if err != nil {
			return nil, nil, errors.Join(err, a.end(ctx))
		}
		resp, err := client.Do(r)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = errors.Join(fmt.Errorf("watch: %s", resp.Status), resp.Body.Close())
		}
		if err != nil {
			return nil, nil, errors.Join(err, a.end(ctx))
		}
		a.wg.Go(func() {
			defer client.CloseIdleConnections()
			err := frames(resp.Body, func(event int) { seen(i, event) })
			a.cancel(fmt.Errorf("watcher %d: %w", i, errors.Join(err, resp.Body.Close())))
		})
	}
	return ctx, a, nil
}

// end ends the watchers and returns what has gone wrong before.
func (a *audience) end(ctx context.Context) error {
	a.cancel(nil)
	a.wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// frames reads frames of a stream until it ends and tells of each.
func frames(stream io.Reader, seen func(event int)) error {
	in := bufio.NewReaderSize(stream, 64<<10)
	for event := 0; ; event++ {
		head, err := in.Peek(4)
		if err != nil {
			return err
		}
		if _, err := in.Discard(4 + int(binary.BigEndian.Uint32(head))); err != nil {
			return err
		}
		seen(event)
	}
}

// flood commits events as fast as the slowest watcher takes them.
func (w *world) flood(ctx context.Context, s side) (sample, error) {
	size := len(s.ops)
	var left [batches]atomic.Int32
	free := make(chan struct{}, batches)
	for range batches {
		free <- struct{}{}
	}
	ctx, a, err := w.gather(ctx, s, func(_, event int) {
		if (event+1)%size == 0 && left[event/size%batches].Add(-1) == 0 {
			free <- struct{}{}
		}
	})
	if err != nil {
		return sample{}, err
	}
	before, err := s.to.cpu()
	if err != nil {
		return sample{}, errors.Join(err, a.end(ctx))
	}
	began, sent := time.Now(), 0
	for b := 0; time.Since(began) < w.span; b++ {
		if err := taken(ctx, free, 1); err != nil {
			return sample{}, errors.Join(err, a.end(ctx))
		}
		left[b%batches].Store(watchers)
		if _, err := w.store.Commit(ctx, s.ops...); err != nil {
			return sample{}, errors.Join(err, a.end(ctx))
		}
		sent += size * watchers
	}
	err = taken(ctx, free, batches)
	took := time.Since(began)
	after, cerr := s.to.cpu()
	if err := errors.Join(err, cerr, a.end(ctx)); err != nil {
		return sample{}, err
	}
	return sample{rate: float64(sent) / took.Seconds(), cpu: (after - before).Seconds() / float64(sent)}, nil
}

// taken takes n tokens.
func taken(ctx context.Context, free <-chan struct{}, n int) error {
	for range n {
		select {
		case <-free:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(patience):
			return fmt.Errorf("watchers have not seen all events after %v", patience)
		}
	}
	return nil
}

// delay commits single events at a steady pace and returns how much later
// than the commit's end 99 of 100 have come.
func (w *world) delay(ctx context.Context, s side) (time.Duration, error) {
	n := max(20, int(steady*2*w.span.Seconds()))
	began := time.Now()
	sent := make([]atomic.Int64, n) // when each commit ended, 0 for not yet
	delays := make([]time.Duration, n*watchers)
	done := make(chan struct{}, watchers)
	ctx, a, err := w.gather(ctx, s, func(watcher, event int) {
		if at := sent[event].Load(); at > 0 { // else etcd was faster to tell than to answer
			delays[event*watchers+watcher] = time.Since(began) - time.Duration(at)
		}
		if event == n-1 {
			done <- struct{}{}
		}
	})
	if err != nil {
		return 0, err
	}
	pace := time.NewTicker(time.Second / steady)
	defer pace.Stop()
	for i := range n {
		if _, err := w.store.Commit(ctx, s.ops[i%len(s.ops)]); err != nil {
			return 0, errors.Join(err, a.end(ctx))
		}
		sent[i].Store(int64(time.Since(began)))
		select {
		case <-pace.C:
		case <-ctx.Done():
		}
	}
	if err := errors.Join(taken(ctx, done, watchers), a.end(ctx)); err != nil {
		return 0, err
	}
	slices.Sort(delays)
	return delays[len(delays)*99/100], nil
}
