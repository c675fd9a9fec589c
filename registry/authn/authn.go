// Package authn finds out who sends a request: by a client certificate, a
// front proxy's word, a token or the caller's being in this process. It also
// issues the tokens of service accounts. What somebody may do is for package
// authz.
package authn

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/knarr-dev/knarr/registry"
)

// An Identity is somebody a token is of, and for whom the token is meant.
type Identity struct {
	registry.User

	Audiences []string
}

// A Tokens knows tokens of one kind. It reports false for a token that is
// not of its kind, and an error for one that is and is not good. Without
// audiences the token is to be for the server itself.
type Tokens interface {
	Token(ctx context.Context, token string, audiences []string) (Identity, bool, error)
}

// A Chain asks one kind of credentials after the other. The first that are
// good count, whatever others a request has besides.
type Chain struct {
	Proxy     *Proxy   // nil where no proxy is to be trusted
	Clients   *Clients // nil where certificates are not looked at
	Tokens    []Tokens
	Anonymous bool // who shows no credentials at all is let in as nobody
}

type userKey struct{}

// WithUser returns a context whose requests are the user's: for callers in
// this process. Nothing that comes from outside can have it.
func WithUser(ctx context.Context, user registry.User) context.Context {
	return context.WithValue(ctx, userKey{}, user)
}

// Request tells who sends r. It takes the credentials that it has used out
// of r's header. Credentials that are not good are an error even where
// nobody in particular may ask.
func (c *Chain) Request(r *http.Request) (registry.User, bool, error) {
	if user, ok := r.Context().Value(userKey{}).(registry.User); ok {
		return member(user), true, nil
	}
	var errs []error
	for _, ask := range []func(*http.Request) (registry.User, bool, error){c.proxied, c.certified, c.bearer} {
		user, ok, err := ask(r)
		if ok {
			return member(user), true, nil
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	switch {
	case len(errs) > 0:
		return registry.User{}, false, errors.Join(errs...)
	case c.Anonymous:
		return registry.User{Name: registry.Anonymous, Groups: []string{registry.Unauthenticated}}, true, nil
	}
	return registry.User{}, false, nil
}

// member puts a user among those who are known.
func member(u registry.User) registry.User {
	if u.Name != registry.Anonymous && !u.In(registry.Authenticated) && !u.In(registry.Unauthenticated) {
		u.Groups = append(slices.Clip(u.Groups), registry.Authenticated)
	}
	return u
}

func (c *Chain) proxied(r *http.Request) (registry.User, bool, error) {
	if c.Proxy == nil {
		return registry.User{}, false, nil
	}
	return c.Proxy.user(r)
}

func (c *Chain) certified(r *http.Request) (registry.User, bool, error) {
	if c.Clients == nil {
		return registry.User{}, false, nil
	}
	return c.Clients.user(r)
}

// ErrToken is the error of a token that nobody knows.
var ErrToken = errors.New("invalid bearer token")

func (c *Chain) bearer(r *http.Request) (registry.User, bool, error) {
	token, ok, err := tokenOf(r)
	if err != nil || !ok {
		return registry.User{}, false, err
	}
	id, ok, err := c.Token(r.Context(), token, nil)
	if err == nil && !ok {
		err = ErrToken
	}
	return id.User, ok, err
}

// Token tells whose a token is that is for one of the given audiences, or
// without any for the server.
func (c *Chain) Token(ctx context.Context, token string, audiences []string) (Identity, bool, error) {
	var errs []error
	for _, t := range c.Tokens {
		id, ok, err := t.Token(ctx, token, audiences)
		if ok {
			id.User = member(id.User)
			return id, true, nil
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return Identity{}, false, errors.Join(errs...)
}

// tokenOf takes the bearer token out of a request: from its header, or from
// the protocols that a browser offers for a web socket, as it has no other
// way to send one.
func tokenOf(r *http.Request) (token string, ok bool, err error) {
	const scheme = "bearer"
	parts := strings.SplitN(strings.TrimSpace(r.Header.Get("Authorization")), " ", 3)
	if len(parts) >= 2 && strings.EqualFold(parts[0], scheme) && parts[1] != "" {
		r.Header.Del("Authorization")
		return parts[1], true, nil
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return "", false, nil
	}
	return socketToken(r)
}

// socketPrefix marks the protocol that is none but carries a token.
const socketPrefix = "base64url.bearer.authorization.k8s.io."

func socketToken(r *http.Request) (token string, ok bool, err error) {
	const header = "Sec-Websocket-Protocol"
	var others []string
	for _, line := range r.Header.Values(header) {
		for protocol := range strings.SplitSeq(line, ",") {
			protocol = strings.TrimSpace(protocol)
			encoded, is := strings.CutPrefix(protocol, socketPrefix)
			if !is {
				others = append(others, protocol)
				continue
			}
			if ok {
				return "", false, errors.New("multiple base64.bearer.authorization tokens specified")
			}
			data, err := base64.RawURLEncoding.DecodeString(encoded)
			if err != nil || !utf8.Valid(data) {
				return "", false, fmt.Errorf("invalid base64.bearer.authorization token encoding: %w", errors.Join(err, ErrToken))
			}
			token, ok = string(data), true
		}
	}
	if ok && len(others) == 0 {
		return "", false, errors.New("missing additional subprotocol")
	}
	if ok {
		// The token is nothing to answer with.
		r.Header.Set(header, strings.Join(others, ","))
	}
	return token, ok, nil
}
