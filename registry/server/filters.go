package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/registry"
)

// A recorder remembers how a request was answered.
type recorder struct {
	http.ResponseWriter

	began time.Time
	code  int
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) WriteHeader(code int) {
	if w.code == 0 {
		w.code = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *recorder) Write(p []byte) (int, error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Flush is for handlers that ask for an http.Flusher.
func (w *recorder) Flush() {
	_ = http.NewResponseController(w.ResponseWriter).Flush() // a writer that cannot is flushed at the end
}

// recover makes a panic an answer, unless it was meant to end the connection.
func (a *answer) recover() {
	v := recover()
	if v == nil {
		return
	}
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(v)
	}
	slog.ErrorContext(a.r.Context(), "panic in a request", "path", a.r.URL.Path, "panic", v, "stack", string(debug.Stack()))
	if out, ok := a.w.(*recorder); ok && out.code == 0 {
		a.fail(apierrors.NewInternalError(fmt.Errorf("%v", v)))
		return
	}
	panic(http.ErrAbortHandler) // too late for an answer: let the client see that it is not whole
}

// auditID is the client's own identification of a request, or a new one.
func auditID(r *http.Request) string {
	if id := r.Header.Get("Audit-Id"); id != "" && len(id) <= 64 {
		return id
	}
	return uuid.NewString()
}

// flights bounds how many requests are served at once.
type flights struct {
	reads, writes chan struct{}
}

// The stock server's bounds.
const (
	stockReads  = 400
	stockWrites = 200
)

func newFlights(reads, writes int) flights {
	if reads == 0 {
		reads = stockReads
	}
	if writes == 0 {
		writes = stockWrites
	}
	return flights{make(chan struct{}, reads), make(chan struct{}, writes)}
}

// take lets a request in, unless there are too many. Who runs the cluster
// always gets in, to be able to mend what floods it.
func (f flights) take(req *registry.Request) (land func(), ok bool) {
	if req.User.In(registry.SystemMasters) {
		return func() {}, true
	}
	seats := f.writes
	if req.Verb == "get" || req.Verb == "list" {
		seats = f.reads
	}
	select {
	case seats <- struct{}{}:
		return func() { <-seats }, true
	default:
		return nil, false
	}
}

// Impersonation headers.
const (
	asUser  = "Impersonate-User"
	asGroup = "Impersonate-Group"
	asUID   = "Impersonate-Uid"
	asExtra = "Impersonate-Extra-"
)

// impersonate makes the request that of the user whom its headers name, if
// its own user may.
func (s *Server) impersonate(r *http.Request, req *registry.Request) error {
	name, groups := r.Header.Get(asUser), r.Header.Values(asGroup)
	extra := map[string][]string{}
	for key, values := range r.Header {
		if field, ok := strings.CutPrefix(key, asExtra); ok {
			if unescaped, err := url.PathUnescape(field); err == nil {
				field = unescaped
			}
			extra[strings.ToLower(field)] = values
		}
	}
	if name == "" {
		if len(groups) > 0 || len(extra) > 0 || r.Header.Get(asUID) != "" {
			if len(extra) == 0 {
				extra = nil
			}
			return apierrors.NewBadRequest(fmt.Sprintf("requested &user.DefaultInfo{Name:%q, UID:%q, Groups:%#v, Extra:%#v} without impersonating a user name",
				name, r.Header.Get(asUID), groups, extra))
		}
		return nil
	}
	as := registry.User{Name: name, UID: r.Header.Get(asUID), Groups: groups, Extra: extra}
	for _, want := range impersonations(as) {
		want.User, want.Verb, want.Resource = req.User, "impersonate", true
		if err := s.Authorize(r.Context(), want); err != nil {
			return err
		}
	}
	ns, account, isAccount := serviceAccount(name)
	if isAccount && len(groups) == 0 {
		as.Groups = []string{"system:serviceaccounts", "system:serviceaccounts:" + ns}
	}
	_ = account
	if !as.In(registry.Unauthenticated) && name != registry.Anonymous {
		as.Groups = append(as.Groups, registry.Authenticated)
	}
	for key := range r.Header {
		if strings.HasPrefix(key, "Impersonate-") {
			r.Header.Del(key)
		}
	}
	req.Annotate("impersonator", req.User.Name)
	req.User = as
	return nil
}

// impersonations are what one must be allowed in order to be somebody.
func impersonations(as registry.User) (all []*registry.Request) {
	if ns, name, ok := serviceAccount(as.Name); ok {
		all = append(all, &registry.Request{Version: "v1", Plural: "serviceaccounts", Namespace: ns, Name: name})
	} else {
		all = append(all, &registry.Request{Version: "v1", Plural: "users", Name: as.Name})
	}
	for _, g := range as.Groups {
		all = append(all, &registry.Request{Version: "v1", Plural: "groups", Name: g})
	}
	const group = "authentication.k8s.io"
	if as.UID != "" {
		all = append(all, &registry.Request{Group: group, Version: "v1", Plural: "uids", Name: as.UID})
	}
	for key, values := range as.Extra {
		for _, v := range values {
			all = append(all, &registry.Request{Group: group, Version: "v1", Plural: "userextras", Sub: key, Name: v})
		}
	}
	return all
}

// serviceAccount splits the user name of a service account.
func serviceAccount(user string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(user, "system:serviceaccount:")
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, ":")
}

// Denied is the error of a request that its user may not make.
func Denied(req *registry.Request, reason string) error {
	var text string
	if !req.Resource {
		text = fmt.Sprintf("User %q cannot %s path %q", req.User.Name, req.Verb, req.Path)
	} else {
		plural := req.Plural
		if req.Sub != "" {
			plural += "/" + req.Sub
		}
		where := "at the cluster scope"
		if req.Namespace != "" {
			where = fmt.Sprintf("in the namespace %q", req.Namespace)
		}
		text = fmt.Sprintf("User %q cannot %s resource %q in API group %q %s", req.User.Name, req.Verb, plural, req.Group, where)
	}
	if reason != "" {
		text += ": " + reason
	}
	gr := schema.GroupResource{}
	if req.Resource {
		gr = schema.GroupResource{Group: req.Group, Resource: req.Plural}
	}
	return apierrors.NewForbidden(gr, req.Name, errors.New(text))
}
