package server

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// An Auth says who may use the secure API. Its zero value lets nobody in.
type Auth struct {
	Node string // the name under which permissions are asked for
	// Authorities sign the client certificates that are believed; nil for none.
	Authorities func() *x509.CertPool
	// Reviews judges bearer tokens and permissions; nil for no tokens, and no
	// permissions unless AlwaysAllow.
	Reviews     kubernetes.Interface
	Anonymous   bool // requests without credentials are system:anonymous
	AlwaysAllow bool
}

// How long an answer of the API server is believed, as stock.
const (
	tokenLife  = 2 * time.Minute
	allowLife  = 5 * time.Minute
	refuseLife = 30 * time.Second
	cacheSize  = 4096
)

type auth struct {
	Auth

	tokens cache[[sha256.Size]byte, *authenticationv1.UserInfo]
	access cache[string, bool]
}

func newAuth(a Auth) *auth { return &auth{Auth: a} }

var errNobody = errors.New("no credentials that are believed")

// guard lets through to next who is known and allowed.
func (a *auth) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, err := a.who(r)
		if err != nil {
			slog.DebugContext(r.Context(), "unauthenticated request", "path", r.URL.Path, "from", r.RemoteAddr, "err", err)
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		verb, asked := verbs[r.Method], subresources(r.URL.Path)
		for _, sub := range asked {
			ok, err := a.may(r.Context(), user, verb, sub)
			if err != nil {
				slog.WarnContext(r.Context(), "authorize request", "user", user.Username, "err", err)
				http.Error(w, fmt.Sprintf("Authorization error (user=%s, verb=%s, resource=nodes, subresource=%s)", user.Username, verb, sub), http.StatusInternalServerError)
				return
			}
			if ok {
				next.ServeHTTP(w, r)
				return
			}
		}
		http.Error(w, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource(s)=%v)", user.Username, verb, asked), http.StatusForbidden)
	})
}

var verbs = map[string]string{
	http.MethodPost: "create", http.MethodGet: "get", http.MethodHead: "get",
	http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete",
}

// fine are the paths whose permission is narrower than nodes/proxy. Where
// proxy is true, that one suffices too.
var fine = []struct {
	path, sub string
	proxy     bool
}{
	{"/stats", "stats", false},
	{"/metrics", "metrics", false},
	{"/logs", "log", false},
	{"/checkpoint", "checkpoint", false},
	{"/statusz", "statusz", false},
	{"/flagz", "configz", false},
	{"/pods", "pods", true},
	{"/runningpods", "pods", true},
	{"/healthz", "healthz", true},
	{"/configz", "configz", true},
}

// subresources are the subresources of nodes of which a request needs one.
// contract: HT-1
func subresources(path string) []string {
	for _, f := range fine {
		if rest, below := strings.CutPrefix(path, f.path); below && (rest == "" || rest[0] == '/') {
			if f.proxy {
				return []string{f.sub, "proxy"}
			}
			return []string{f.sub}
		}
	}
	return []string{"proxy"}
}

// who is the user by certificate, else by token. Who shows credentials that
// are not believed is not anonymous but nobody.
func (a *auth) who(r *http.Request) (*authenticationv1.UserInfo, error) {
	certificate := r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && a.Authorities != nil
	if certificate {
		if user, err := a.byCertificate(r.TLS.PeerCertificates); err == nil {
			return user, nil
		}
	}
	header := r.Header.Get("Authorization")
	token, has := strings.CutPrefix(header, "Bearer ")
	switch {
	case has && a.Reviews != nil:
		return a.byToken(r.Context(), token)
	case header == "" && !certificate && a.Anonymous:
		return &authenticationv1.UserInfo{Username: "system:anonymous", Groups: []string{"system:unauthenticated"}}, nil
	}
	return nil, errNobody
}

func (a *auth) byCertificate(chain []*x509.Certificate) (*authenticationv1.UserInfo, error) {
	opts := x509.VerifyOptions{
		Roots:         a.Authorities(),
		Intermediates: x509.NewCertPool(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(opts); err != nil {
		return nil, err
	}
	if chain[0].Subject.CommonName == "" {
		return nil, errNobody
	}
	return &authenticationv1.UserInfo{
		Username: chain[0].Subject.CommonName,
		Groups:   append(chain[0].Subject.Organization, "system:authenticated"),
	}, nil
}

func (a *auth) byToken(ctx context.Context, token string) (*authenticationv1.UserInfo, error) {
	key := sha256.Sum256([]byte(token))
	if user, ok := a.tokens.get(key); ok {
		return user, nil
	}
	review, err := a.Reviews.AuthenticationV1().TokenReviews().Create(ctx,
		&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("review token: %w", err)
	}
	if !review.Status.Authenticated {
		return nil, errNobody
	}
	a.tokens.put(key, &review.Status.User, tokenLife)
	return &review.Status.User, nil
}

// may asks the API server, as the only one who knows.
func (a *auth) may(ctx context.Context, user *authenticationv1.UserInfo, verb, sub string) (bool, error) {
	if a.AlwaysAllow || a.Reviews == nil {
		return a.AlwaysAllow, nil
	}
	key := fmt.Sprintf("%q %q %q %q %q %q", user.Username, user.UID, user.Groups, user.Extra, verb, sub)
	if ok, known := a.access.get(key); known {
		return ok, nil
	}
	extra := map[string]authorizationv1.ExtraValue{}
	for k, v := range user.Extra {
		extra[k] = authorizationv1.ExtraValue(v)
	}
	review, err := a.Reviews.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user.Username, UID: user.UID, Groups: user.Groups, Extra: extra,
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Verb: verb, Version: "v1", Resource: "nodes", Subresource: sub, Name: a.Node,
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("review access: %w", err)
	}
	life := refuseLife
	if review.Status.Allowed {
		life = allowLife
	}
	a.access.put(key, review.Status.Allowed, life)
	return review.Status.Allowed, nil
}

// A cache remembers answers for a while. A full one forgets everything.
type cache[K comparable, V any] struct {
	mu      sync.Mutex
	entries map[K]entry[V]
}

type entry[V any] struct {
	value V
	until time.Time
}

func (c *cache[K, V]) get(k K) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[k]
	if !ok || time.Now().After(e.until) {
		return v, false
	}
	return e.value, true
}

func (c *cache[K, V]) put(k K, v V, life time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil || len(c.entries) >= cacheSize {
		c.entries = map[K]entry[V]{}
	}
	c.entries[k] = entry[V]{v, time.Now().Add(life)}
}
