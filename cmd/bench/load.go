package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Media types of requests and answers.
const (
	jsonMedia  = "application/json"
	protoMedia = "application/vnd.kubernetes.protobuf"
	applyMedia = "application/apply-patch+yaml"
)

// A call is a request, and what its answer should be.
type call struct {
	method, path string // GET where there is no method
	sent, asked  string // media types of the body and of the answer
	body         []byte
	want         int // status; 200 where 0
	size         int // of the answer, about; any where 0
}

// slack is how much an answer may differ in size, as revisions grow digits.
const slack = 64

// request is the call as HTTP has it.
func (e *endpoint) request(ctx context.Context, c call) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, cmp.Or(c.method, http.MethodGet), e.url+c.path, bytes.NewReader(c.body))
	if err != nil {
		return nil, err
	}
	if c.sent != "" {
		r.Header.Set("Content-Type", c.sent)
	}
	if c.asked != "" {
		r.Header.Set("Accept", c.asked)
	}
	return r, nil
}

// do makes the call and reads all of the answer into buf, again and again.
func (e *endpoint) do(ctx context.Context, client *http.Client, c call, buf []byte) (err error) {
	r, err := e.request(ctx, c)
	if err != nil {
		return err
	}
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if want := cmp.Or(c.want, http.StatusOK); resp.StatusCode != want {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return errors.Join(fmt.Errorf("%s %s: %s, not %d: %s", r.Method, c.path, resp.Status, want, text), err)
	}
	if len(buf) == 0 {
		buf = make([]byte, 4<<10)
	}
	for n := 0; ; {
		some, err := resp.Body.Read(buf)
		n += some
		if errors.Is(err, io.EOF) {
			return c.fits(n)
		}
		if err != nil {
			return fmt.Errorf("%s %s: after %d bytes: %w", r.Method, c.path, n, err)
		}
	}
}

// fits holds that an answer is as long as it should be.
func (c call) fits(n int) error {
	if c.size > 0 && (n < c.size-slack || n > c.size+slack) {
		return fmt.Errorf("%s %s: the answer has %d bytes, not %d", c.method, c.path, n, c.size)
	}
	return nil
}

// fetch makes the call and returns the answer.
func (e *endpoint) fetch(ctx context.Context, c call) ([]byte, error) {
	client := e.client()
	defer client.CloseIdleConnections()
	r, err := e.request(ctx, c)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	err = errors.Join(err, resp.Body.Close())
	if want := cmp.Or(c.want, http.StatusOK); resp.StatusCode != want {
		err = errors.Join(err, fmt.Errorf("%s %s: %s, not %d: %.1000s", r.Method, c.path, resp.Status, want, body))
	}
	return body, err
}

// A load is what clients ask of an endpoint.
type load struct {
	to      *endpoint
	clients int
	call    func(i int) call // the i-th
	count   int              // of calls; as many as go into span where 0
	span    time.Duration
}

// always makes the same call each time.
func always(c call) func(int) call { return func(int) call { return c } }

// A sample is what a load has shown.
type sample struct {
	rate float64 // calls a second
	cpu  float64 // seconds of the server's, a call
}

// run makes the calls. Connections are there before the clock starts.
func (l load) run(ctx context.Context) (sample, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	clients := make([]*http.Client, l.clients)
	for i := range clients {
		clients[i] = l.to.client()
		defer clients[i].CloseIdleConnections()
		if err := l.to.do(ctx, clients[i], call{path: "/readyz"}, nil); err != nil {
			return sample{}, err
		}
	}
	before, err := l.to.cpu()
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	var next, done atomic.Int64
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			buf := make([]byte, 256<<10)
			for i := next.Add(1) - 1; l.more(i, began); i = next.Add(1) - 1 {
				if err := l.to.do(ctx, c, l.call(int(i)), buf); err != nil {
					cancel(err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	after, err := l.to.cpu()
	if err := errors.Join(context.Cause(ctx), err, l.to.alive()); err != nil {
		return sample{}, err
	}
	n := float64(done.Load())
	return sample{rate: n / took.Seconds(), cpu: (after - before).Seconds() / n}, nil
}

// more tells whether the i-th call is to be made.
func (l load) more(i int64, began time.Time) bool {
	if l.count > 0 {
		return i < int64(l.count)
	}
	return i == 0 || time.Since(began) < l.span
}
