package registry

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/knarr-dev/knarr/apis"
)

// A User is somebody who asks something of the server.
type User struct {
	Name, UID string
	Groups    []string
	Extra     map[string][]string
}

// In reports whether the user is in a group.
func (u *User) In(group string) bool {
	return slices.Contains(u.Groups, group)
}

// Names that mean something to the server itself.
const (
	SystemMasters   = "system:masters" // may do everything
	Authenticated   = "system:authenticated"
	Unauthenticated = "system:unauthenticated"
	Anonymous       = "system:anonymous"
	APIServer       = "system:apiserver" // the server itself
)

// A Request is what the parts of the server that handle it know of a request.
type Request struct {
	User      User
	Verb      string // get list watch create update patch delete deletecollection, or a lower-case HTTP method
	Path      string
	Resource  bool // whether it asks for a resource, and what follows is set
	Group     string
	Version   string
	Plural    string
	Sub       string
	Namespace string
	Name      string
	Parts     []string // of the path behind the subresource
	Agent     string   // the User-Agent
	Labels    string   // selectors, for authorization
	Fields    string

	mu       sync.Mutex
	warnings []string
	audit    map[string]string
}

type requestKey struct{}

// WithRequest returns a context that carries r.
func WithRequest(ctx context.Context, r *Request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

// RequestOf returns the request that is being handled; where there is none
// it is one of the server itself.
func RequestOf(ctx context.Context) *Request {
	if r, ok := ctx.Value(requestKey{}).(*Request); ok {
		return r
	}
	return &Request{User: Self()}
}

// Self is the server as a user of itself.
func Self() User {
	return User{Name: APIServer, Groups: []string{SystemMasters, Authenticated}}
}

// Warn adds a warning to the answer, once.
func Warn(ctx context.Context, texts ...string) {
	r := RequestOf(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, text := range texts {
		known := false
		for _, w := range r.warnings {
			known = known || w == text
		}
		if !known {
			r.warnings = append(r.warnings, text)
		}
	}
}

// Warnings are the warnings so far.
func (r *Request) Warnings() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.warnings
}

// Annotate adds a note to the request's audit event.
func (r *Request) Annotate(key, value string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.audit == nil {
		r.audit = map[string]string{}
	}
	r.audit[key] = value
}

// Annotations are the notes for the request's audit event so far.
func (r *Request) Annotations() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.audit)
}

// Manager is the name under which a write by the request's client owns
// fields, if the client gives none: its program's name.
func (r *Request) Manager() string {
	name, _, _ := strings.Cut(r.Agent, "/")
	keep := func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}
	return shorten(strings.Map(keep, name), 128)
}

func shorten(s string, most int) string {
	if len(s) > most {
		return s[:most]
	}
	return s
}

// Key is the key of the object in its kind's part of the store.
func Key(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// Path is the full key of a kind's object in the store.
func Path(d *apis.Definition, namespace, name string) string {
	return fmt.Sprintf("/registry/%s/%s", d.StoredAt, Key(namespace, name))
}
