// Package inproc lets parts of the server's own process be its clients: an
// http.RoundTripper that calls the server's handler, without a connection in
// between. Requests carry their user by context and are authorized as any
// other; bodies stream both ways. Connections cannot be taken over, so that
// exec and the like need a real one.
package inproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"sync"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/authn"
)

// A Transport sends requests to Handler as User's.
type Transport struct {
	Handler http.Handler
	User    registry.User
}

// RoundTrip is part of http.RoundTripper.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(authn.WithUser(req.Context(), t.User))
	e := &exchange{
		ctx: ctx, cancel: cancel, bare: req.Method == http.MethodHead, header: http.Header{}, begun: make(chan struct{}),
		readable: make(chan struct{}, 1), writable: make(chan struct{}, 1),
	}
	go e.run(t.Handler, served(req, ctx))
	select {
	case <-e.begun:
	case <-req.Context().Done():
		cancel()
		return nil, req.Context().Err()
	}
	if err := e.failed(); err != nil {
		cancel()
		return nil, err
	}
	return e.response(req), nil
}

// served is a client's request as a server is to see it.
func served(req *http.Request, ctx context.Context) *http.Request { //nolint:revive // the context belongs to the copy, not to the call
	r := req.WithContext(ctx)
	// The server takes credentials out of the header, which stays the client's.
	r.Header = make(http.Header, len(req.Header))
	maps.Copy(r.Header, req.Header)
	if r.Body == nil {
		r.Body = http.NoBody
	}
	if r.Host == "" {
		r.Host = r.URL.Host
	}
	r.RequestURI, r.RemoteAddr = r.URL.RequestURI(), "@"
	return r
}

// room is how much of an answer waits for its reader; who writes more waits.
const room = 64 << 10

// An exchange is one request and its answer. To the handler it is an
// http.ResponseWriter, to the client the body of the response.
type exchange struct {
	ctx    context.Context //nolint:containedctx // an exchange lives as long as its request
	cancel context.CancelFunc
	bare   bool // there is no body to this one
	header http.Header
	late   http.Header   // what the handler sets too late
	begun  chan struct{} // closed when there is something for the client to look at

	readable, writable chan struct{} // told of something to read, of room to write

	mu    sync.Mutex
	code  int
	sent  bool   // begun is closed
	buf   []byte // written and not yet read, from off on
	off   int
	lent  []byte // what a Write that waits has still to give, after buf
	ended bool   // the handler has returned, or the client does not listen any more
	err   error  // why it ended before its time
}

// run has the handler answer the request.
func (e *exchange) run(h http.Handler, r *http.Request) {
	defer e.cancel()
	defer func() { _ = r.Body.Close() }() // as an http.RoundTripper must
	defer func() {
		v := recover()
		err, _ := v.(error)
		switch {
		case v == nil:
			e.end(e.ctx.Err()) // an answer that nobody waited for may not be whole
		case errors.Is(err, http.ErrAbortHandler):
			e.end(io.ErrUnexpectedEOF)
		default:
			e.end(fmt.Errorf("panic in the server: %v", v))
		}
	}()
	h.ServeHTTP(e, r)
}

// response is the answer so far, as the client is to see it.
func (e *exchange) response(req *http.Request) *http.Response {
	e.mu.Lock()
	code, h := e.code, e.header
	e.mu.Unlock()
	resp := &http.Response{
		StatusCode: code, Status: strconv.Itoa(code) + " " + http.StatusText(code),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: e, ContentLength: -1, Request: req,
	}
	if n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil {
		resp.ContentLength = n
	}
	return resp
}

// failed is why there is no answer at all, if there is none.
func (e *exchange) failed() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.code == 0 {
		return e.err
	}
	return nil
}

// end says that nothing more comes.
func (e *exchange) end(err error) {
	e.mu.Lock()
	if !e.ended {
		e.ended, e.err = true, err
	}
	if e.code == 0 && e.err == nil {
		e.code = http.StatusOK
	}
	e.begin()
	e.mu.Unlock()
	notify(e.readable)
	notify(e.writable)
}

// begin shows the answer to the client. The caller holds mu.
func (e *exchange) begin() {
	if !e.sent {
		e.sent = true
		close(e.begun)
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Header is part of http.ResponseWriter.
func (e *exchange) Header() http.Header {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.sent {
		return e.header
	}
	if e.late == nil {
		e.late = e.header.Clone()
	}
	return e.late
}

// WriteHeader is part of http.ResponseWriter.
func (e *exchange) WriteHeader(code int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.code == 0 && code >= http.StatusOK {
		e.code = code
	}
}

// Flush is part of http.Flusher.
func (e *exchange) Flush() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.code == 0 {
		e.code = http.StatusOK
	}
	e.begin()
}

// Write is part of http.ResponseWriter. Little is kept for the reader to
// take when it likes; much is lent to it, and Write waits until it is taken.
func (e *exchange) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.code == 0 {
		e.code = http.StatusOK
	}
	if e.ended {
		return 0, e.closed()
	}
	if e.bare {
		return len(p), nil
	}
	if len(e.buf)-e.off+len(p) <= room {
		e.buf = append(e.buf, p...)
		notify(e.readable)
		return len(p), nil
	}
	e.begin()
	e.lent = p
	notify(e.readable)
	for len(e.lent) > 0 && !e.ended {
		if err := e.wait(e.writable); err != nil {
			break
		}
	}
	n := len(p) - len(e.lent)
	e.lent = nil
	if n < len(p) {
		return n, e.closed()
	}
	return n, nil
}

// closed is the error of writing to a client that does not listen any more.
func (e *exchange) closed() error {
	if err := e.ctx.Err(); err != nil {
		return err
	}
	return http.ErrHandlerTimeout
}

// wait waits for c or the end of the request. The caller holds mu, which is
// let go meanwhile.
func (e *exchange) wait(c chan struct{}) error {
	e.mu.Unlock()
	defer e.mu.Lock()
	select {
	case <-c:
		return nil
	case <-e.ctx.Done():
		return e.ctx.Err()
	}
}

// Read is part of the response's body.
func (e *exchange) Read(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		if n := e.take(p); n > 0 || len(p) == 0 {
			return n, nil
		}
		if e.ended {
			if e.err != nil {
				return 0, e.err
			}
			return 0, io.EOF
		}
		if err := e.wait(e.readable); err != nil {
			if e.ended || len(e.buf) > e.off {
				continue // the handler was done first
			}
			return 0, err
		}
	}
}

// take copies what there is to p. The caller holds mu.
func (e *exchange) take(p []byte) int {
	n := copy(p, e.buf[e.off:])
	if e.off += n; e.off == len(e.buf) {
		e.buf, e.off = e.buf[:0], 0
	}
	if len(e.lent) > 0 && n < len(p) {
		m := copy(p[n:], e.lent)
		e.lent = e.lent[m:]
		n += m
		if len(e.lent) == 0 {
			notify(e.writable)
		}
	}
	return n
}

// Close is part of the response's body. It ends the request.
func (e *exchange) Close() error {
	e.cancel()
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.ended {
		e.ended, e.err = true, errClosed
	}
	return nil
}

var errClosed = errors.New("read of a closed response body")
