// Package server speaks HTTP for the registry: it finds out what a request
// asks for and by whom, has it decided whether that is allowed, calls
// package rest or a subresource, and writes the answer in the form that the
// client accepts. It decides nothing about objects.
package server

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/rest"
	"github.com/knarr-dev/knarr/registry/sub"
)

// Config is what a Server is made of.
type Config struct {
	Rest    *rest.Service
	Actions []sub.Action // of subresources, and of kinds that are not stored

	// Authenticate tells who sends a request; ok is false for nobody known,
	// an error is for credentials that are wrong.
	Authenticate func(r *http.Request) (user registry.User, ok bool, err error)

	// Authorize returns nil where the request may be done, else an error
	// that says why not.
	Authorize func(ctx context.Context, r *registry.Request) error

	// Audit is told of each request when its user is known, or is known to be
	// nobody, and whether it is one without an end. It returns what the answer
	// is to be written to, and what is to be called at the end. nil for nobody.
	Audit func(w http.ResponseWriter, r *http.Request, req *registry.Request, endless bool) (http.ResponseWriter, func())

	// Paths are handlers by path, for all that is no resource and does not
	// change. One ending in a slash serves all below it.
	Paths map[string]http.Handler

	// Settled waits until the kinds that Rest has are those that any client
	// has been told of; nil where they never change.
	Settled func(ctx context.Context) error

	// Elsewhere is the handler of requests for a group version that another
	// server serves, nil for one that this server does; nil where that is all.
	Elsewhere func(gv schema.GroupVersion) http.Handler

	// At most so many requests are served at once that read, and that write;
	// 0 for the stock server's numbers.
	MaxReads, MaxWrites int

	// SlowWatch is how long a watcher may take to read what it is sent, before
	// it is dropped; a minute where 0.
	SlowWatch time.Duration
}

// A Server is an http.Handler. Use New.
type Server struct {
	Config

	rest      *rest.Service
	routes    atomic.Pointer[routes]
	actions   map[actionKey]*sub.Action
	flights   flights
	documents kept // of OpenAPI
	stopping  chan struct{}
	stop      sync.Once
}

// Routes are where requests lead. They never change; others take their place.
type routes struct {
	forms  map[schema.GroupVersionResource]*rest.Form
	groups map[string]bool // that there are built-in forms of
	paths  map[string]http.Handler
}

type actionKey struct {
	schema.GroupResource
	sub string
}

// New returns a server of the kinds that cfg.Rest has.
func New(cfg Config) *Server {
	s := &Server{
		Config: cfg, rest: cfg.Rest, stopping: make(chan struct{}),
		actions: map[actionKey]*sub.Action{}, documents: kept{docs: map[string]*document{}},
		flights: newFlights(cfg.MaxReads, cfg.MaxWrites),
	}
	s.SlowWatch = cmp.Or(cfg.SlowWatch, time.Minute)
	for i := range cfg.Actions {
		a := &cfg.Actions[i]
		s.actions[actionKey{a.Resource, a.Sub}] = a
	}
	s.Route(nil)
	return s
}

// Route serves the kinds that Rest has now, and handlers of paths besides
// those of Paths, which tell of those kinds.
func (s *Server) Route(paths map[string]http.Handler) {
	r := &routes{forms: map[schema.GroupVersionResource]*rest.Form{}, groups: map[string]bool{}, paths: paths}
	for _, k := range s.rest.Kinds() {
		for _, f := range k.Forms() {
			gvr := f.Wire.GroupVersion().WithResource(k.Plural)
			if r.forms[gvr] == nil {
				r.forms[gvr] = f
			}
			if k.Custom == nil {
				r.groups[f.Wire.Group] = true
			}
		}
	}
	s.routes.Store(r)
}

// form finds what a request asks for, nil where there is no such thing. A
// custom kind may be so new that only another server knows it, and one that
// is ending may have ended and been made anew.
func (s *Server) form(ctx context.Context, req *registry.Request) (*rest.Form, error) {
	f := s.routes.Load().forms[gvr(req)]
	current := f != nil && (f.Custom == nil || !f.Custom.Ending)
	if current || s.Settled == nil || !strings.Contains(req.Group, ".") {
		return f, nil
	}
	if err := s.Settled(ctx); err != nil {
		return nil, err
	}
	return s.routes.Load().forms[gvr(req)], nil
}

// Stop ends all watches and other requests without an end.
func (s *Server) Stop() { s.stop.Do(func() { close(s.stopping) }) }

// Going is a probe that fails once the server is stopping.
func (s *Server) Going(*http.Request) error {
	select {
	case <-s.stopping:
		return errors.New("the server is stopping")
	default:
		return nil
	}
}

// requestTime is how long a request with an end may take, as upstream.
const requestTime = time.Minute

// lastWords is how long after that the answer may take to be read.
const lastWords = 10 * time.Second

// roomy makes the stack large enough for most of what writes do. It has little
// to move yet; later it would be moved twice, with all that is on it.
//
//go:noinline
func roomy() byte {
	var room [16 << 10]byte
	return room[len(os.Args)]
}

// ServeHTTP is part of http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		_ = roomy()
	}
	out := &recorder{ResponseWriter: w, began: time.Now()}
	req := parse(r)
	r = r.WithContext(registry.WithRequest(r.Context(), req))
	a := &answer{s: s, w: out, r: r, done: func() {}}
	defer s.count(req, out)
	defer func() { a.done() }()
	defer a.recover()
	h := out.Header()
	h.Set("Cache-Control", "no-cache, private")
	h.Set("Audit-Id", auditID(r))
	if err := s.admit(a, req); err != nil {
		readBy(w, out.began.Add(lastWords)) // the rest of the body is only thrown away
		a.fail(err)
		return
	}
	if longRunning(req) {
		going := longs.WithLabelValues(longSeries(req)...)
		going.Inc()
		defer going.Dec()
	} else {
		limit, err := timeoutOf(r.URL.Query(), requestTime)
		if err != nil {
			a.fail(err)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		cut := time.AfterFunc(limit+lastWords, func() { cutOff(w) })
		defer cut.Stop()
		if r.Body != nil && r.Body != http.NoBody {
			late := time.AfterFunc(limit, func() { readBy(w, time.Now()) })
			defer late.Stop()
		}
		a.r = r.WithContext(ctx)
		land, ok := s.flights.take(req)
		if !ok {
			a.fail(tooMany())
			return
		}
		defer land()
	}
	s.serve(a, req)
}

// cutOff ends writing to a client that does not read.
func cutOff(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now()) // a writer that cannot is in this process
}

// readBy ends reading from a client that has not come to the end of its body
// by then.
func readBy(w http.ResponseWriter, end time.Time) {
	_ = http.NewResponseController(w).SetReadDeadline(end) // a writer that cannot is in this process
}

// admit finds out whose the request is and whether it may be.
func (s *Server) admit(a *answer, req *registry.Request) error {
	user, ok, err := s.Authenticate(a.r)
	req.User = user
	if out, is := a.w.(*recorder); is && s.Audit != nil {
		out.ResponseWriter, a.done = s.Audit(out.ResponseWriter, a.r, req, longRunning(req))
	}
	if err != nil || !ok {
		return apierrors.NewUnauthorized("Unauthorized")
	}
	a.r.Header.Del("Authorization") // nobody behind here is to see it
	if err := s.impersonate(a.r, req); err != nil {
		return err
	}
	return s.Authorize(a.r.Context(), req)
}

// serve routes a request that may be done.
func (s *Server) serve(a *answer, req *registry.Request) {
	if !req.Resource {
		s.path(req.Path).ServeHTTP(a.w, a.r)
		return
	}
	if s.Elsewhere != nil {
		if h := s.Elsewhere(schema.GroupVersion{Group: req.Group, Version: req.Version}); h != nil {
			ctx, end := a.untilStop()
			defer end()
			h.ServeHTTP(a.w, a.r.WithContext(ctx))
			return
		}
	}
	f, err := s.form(a.r.Context(), req)
	switch {
	case err != nil:
		a.fail(err)
	case f != nil && f.Custom != nil && misplaced(f, req):
		http.NotFound(a.w, a.r)
	case f != nil:
		if f.Deprecated != "" {
			registry.Warn(a.r.Context(), f.Deprecated)
		}
		if err := s.do(a, f, req); err != nil {
			a.fail(err)
		}
	case s.routes.Load().groups[req.Group]:
		a.fail(noSuchThing())
	default:
		http.NotFound(a.w, a.r)
	}
}

// misplaced reports whether a request is made in a namespace for what is in
// none, or the other way round. Of custom kinds there is no such path.
func misplaced(f *rest.Form, req *registry.Request) bool {
	if f.Scope == apis.Cluster {
		return req.Namespace != ""
	}
	return req.Namespace == "" && req.Verb != "list" && req.Verb != "watch"
}

// path finds the handler of a path that is no resource: its own, or the one
// of the nearest path above it that serves all below.
func (s *Server) path(path string) http.Handler {
	if h, ok := s.handler(strings.TrimRight(path, "/")); ok {
		return h
	}
	for i := strings.LastIndexByte(path, '/'); i >= 0; i = strings.LastIndexByte(path[:i], '/') {
		if h, ok := s.handler(path[:i+1]); ok {
			return h
		}
	}
	return http.NotFoundHandler()
}

func (s *Server) handler(path string) (h http.Handler, ok bool) {
	if h, ok = s.routes.Load().paths[path]; !ok {
		h, ok = s.Paths[path]
	}
	return h, ok
}

func gvr(req *registry.Request) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: req.Group, Version: req.Version, Resource: req.Plural}
}

// do does what a request asks of a form.
func (s *Server) do(a *answer, f *rest.Form, req *registry.Request) error {
	options := req.Sub == "proxy" && a.r.Method == http.MethodOptions // which is no verb and yet may be passed on
	switch {
	case req.Verb == "" && !options:
		return notAllowed()
	case f.Scope == apis.Cluster && req.Namespace != "" && f.Plural != "namespaces":
		return noSuchThing()
	case f.Scope == apis.Cluster:
		req.Namespace = ""
	case req.Namespace == "" && req.Verb != "list" && req.Verb != "watch":
		return notAllowed()
	}
	if req.Verb == "create" && req.Name != "" && req.Sub == "" {
		return notAllowed()
	}
	if action := s.actions[actionKey{f.GroupResource(), req.Sub}]; action != nil {
		if !options && !slices.Contains(verbsOf(f, req.Sub), req.Verb) {
			return notAllowed()
		}
		return a.act(f, action, req)
	}
	if req.Sub == "scale" && f.Scale != nil {
		return a.doScale(f, req)
	}
	if req.Sub != "" && f.Sub(req.Sub) == nil {
		if f.Custom != nil {
			return apierrors.NewNotFound(f.GroupResource(), req.Name)
		}
		return noSuchThing()
	}
	deed := deeds[req.Verb]
	if deed == nil || !slices.Contains(verbsOf(f, req.Sub), req.Verb) {
		return notAllowed()
	}
	return deed(a, f, req)
}

// verbsOf are the verbs that a form, or its subresource, is asked with.
func verbsOf(f *rest.Form, name string) []string {
	if name == "" {
		return f.Verbs
	}
	for _, act := range f.Acts {
		if act.Name == name {
			return act.Verbs
		}
	}
	if s := f.Sub(name); s != nil && s.Verbs != nil {
		return s.Verbs
	}
	return []string{"get", "patch", "update"}
}

func notAllowed() error {
	return plain(http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, "the server does not allow this method on the requested resource")
}

func noSuchThing() error {
	return plain(http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find the requested resource")
}

// plain is an error that is about no object.
func plain(code int32, reason metav1.StatusReason, message string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message, Details: &metav1.StatusDetails{},
	}}
}

func tooMany() error {
	return apierrors.NewTooManyRequests("The apiserver is too busy to handle the request.", 1)
}

// Limits on what a connection may ask for, so that none can keep others out.
const (
	headerTime = 32 * time.Second
	idleTime   = 3 * time.Minute
	maxHeader  = 1 << 20
	maxStreams = 250 // of HTTP/2, in a connection, as upstream
)

// HTTP is what serves connections to s.
func (s *Server) HTTP() *http.Server {
	return &http.Server{
		Handler: s, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
	}
}

// Running serves l until ctx ends; then it lets requests in flight finish.
func (s *Server) Running(ctx context.Context, srv *http.Server, serve func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- serve() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	s.Stop()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTime)
	defer cancel()
	err := srv.Shutdown(last)
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
