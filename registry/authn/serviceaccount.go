package authn

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
)

// Claims are what a token of a service account says. Times are in seconds
// since 1970.
type Claims struct {
	Audience   []string  `json:"aud,omitempty"`
	Expiry     int64     `json:"exp,omitempty"`
	IssuedAt   int64     `json:"iat,omitempty"`
	Issuer     string    `json:"iss,omitempty"`
	ID         string    `json:"jti,omitempty"`
	Kubernetes Binding   `json:"kubernetes.io,omitzero"`
	NotBefore  int64     `json:"nbf,omitempty"`
	Subject    string    `json:"sub,omitempty"`
	Legacy     legacyRef `json:"-"`
}

// A Binding is the service account that a token is of, and what it lives no
// longer than: a pod, secret or node. With a pod the node is only told.
type Binding struct {
	Namespace      string `json:"namespace,omitempty"`
	Node           *Ref   `json:"node,omitempty"`
	Pod            *Ref   `json:"pod,omitempty"`
	Secret         *Ref   `json:"secret,omitempty"`
	ServiceAccount Ref    `json:"serviceaccount,omitzero"`
	WarnAfter      int64  `json:"warnafter,omitempty"`
}

// A Ref is one object that had a name.
type Ref struct {
	Name string    `json:"name,omitempty"`
	UID  types.UID `json:"uid,omitempty"`
}

// Objects shows what tokens are bound to.
type Objects interface {
	// Trace returns an object's UID, and when it is to be gone, zero for
	// never; the error is a NotFound Status where there is none.
	Trace(ctx context.Context, gr schema.GroupResource, namespace, name string) (types.UID, time.Time, error)
	Lookup(ctx context.Context, gr schema.GroupResource, namespace, name string) (apis.Object, error)
}

// ServiceAccounts knows the tokens of service accounts.
type ServiceAccounts struct {
	Issuers   []string // whose tokens are good
	Audiences []string // the server's own
	Keys      *Keys
	Objects   Objects
	Now       func() time.Time

	// Used is told, once a day, of the use of a token that is kept in a
	// secret, which then is to be labelled with the day; nil for nobody.
	Used func(ctx context.Context, namespace, secret, day string)

	signed signed
}

// Token is part of Tokens.
func (a *ServiceAccounts) Token(ctx context.Context, token string, audiences []string) (Identity, bool, error) {
	c, err := a.signed.claims(token, a)
	if err != nil || c == nil {
		return Identity{}, false, err
	}
	if c.Issuer == legacyIssuer {
		return a.legacy(ctx, token, c, audiences)
	}
	meant, wanted := c.Audience, audiences
	if len(meant) == 0 {
		meant = a.Audiences
	}
	if len(wanted) == 0 {
		wanted = a.Audiences
	}
	both := common(meant, wanted)
	if len(both) == 0 {
		return Identity{}, false, fmt.Errorf("token audiences %q is invalid for the target audiences %q", meant, wanted)
	}
	if err := c.timely(a.Now()); err != nil {
		return Identity{}, false, err
	}
	if err := a.bound(ctx, c); err != nil {
		return Identity{}, false, err
	}
	if warn := c.Kubernetes.WarnAfter; warn != 0 && a.Now().Unix() > warn {
		registry.RequestOf(ctx).Annotate("authentication.k8s.io/stale-token",
			fmt.Sprintf("subject: %s, seconds after warning threshold: %d", c.Subject, a.Now().Unix()-warn))
	}
	return Identity{User: c.user(), Audiences: both}, true, nil
}

// ours reports whether a token says that it is by an issuer known here,
// which its signature must then prove.
func (a *ServiceAccounts) ours(token string) bool {
	_, rest, ok := strings.Cut(token, ".")
	body, _, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 {
		return false
	}
	payload, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil {
		return false
	}
	var c struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(payload, &c) != nil {
		return false
	}
	return c.Issuer == legacyIssuer || slices.Contains(a.Issuers, c.Issuer)
}

// leeway is by how much clocks may differ.
const leeway = time.Minute

// timely checks that it is time for the token.
func (c *Claims) timely(now time.Time) error {
	early, late := now.Add(leeway).Unix(), now.Add(-leeway).Unix()
	switch {
	case c.NotBefore != 0 && c.NotBefore > early:
		return errors.New("service account token is not valid yet")
	case c.Expiry != 0 && c.Expiry < late:
		return errors.New("service account token has expired")
	case c.IssuedAt != 0 && c.IssuedAt > early:
		return errors.New("service account token is issued in the future")
	}
	return nil
}

var (
	serviceAccounts = schema.GroupResource{Resource: "serviceaccounts"}
	pods            = schema.GroupResource{Resource: "pods"}
	nodes           = schema.GroupResource{Resource: "nodes"}
	secrets         = schema.GroupResource{Resource: "secrets"}
)

var errInvalidated = errors.New("service account token has been invalidated")

// bound checks that what the token is bound to is there, and the same as
// when it was issued.
func (a *ServiceAccounts) bound(ctx context.Context, c *Claims) error {
	k := &c.Kubernetes
	gone := a.Now().Add(-leeway)
	uid, deleted, err := a.Objects.Trace(ctx, serviceAccounts, k.Namespace, k.ServiceAccount.Name)
	switch {
	case err != nil:
		return err
	case uid != k.ServiceAccount.UID:
		return fmt.Errorf("service account UID (%s) does not match claim (%s)", uid, k.ServiceAccount.UID)
	case !deleted.IsZero() && deleted.Before(gone):
		return fmt.Errorf("service account %s/%s has been deleted", k.Namespace, k.ServiceAccount.Name)
	}
	for _, b := range []struct {
		ref       *Ref
		gr        schema.GroupResource
		namespace string
		mismatch  string
	}{
		{k.Secret, secrets, k.Namespace, "secret UID (%s) does not match service account secret ref claim (%s)"},
		{k.Pod, pods, k.Namespace, "pod UID (%s) does not match service account pod ref claim (%s)"},
		{k.node(), nodes, "", "node UID (%s) does not match service account node ref claim (%s)"},
	} {
		if b.ref == nil {
			continue
		}
		uid, deleted, err := a.Objects.Trace(ctx, b.gr, b.namespace, b.ref.Name)
		switch {
		case err != nil && !apierrors.IsNotFound(err):
			return err
		case err != nil:
			return errInvalidated
		case uid != b.ref.UID:
			return fmt.Errorf(b.mismatch, uid, b.ref.UID)
		case !deleted.IsZero() && deleted.Before(gone):
			return errInvalidated
		}
	}
	return nil
}

// node is the node that the token is bound to, nil where it is to a pod, or to nothing.
func (b *Binding) node() *Ref {
	if b.Pod != nil {
		return nil
	}
	return b.Node
}

// user is the service account as a user.
func (c *Claims) user() registry.User {
	k := &c.Kubernetes
	u := account(k.Namespace, k.ServiceAccount)
	extra := func(ref *Ref, what string) {
		if ref != nil {
			u.Extra["authentication.kubernetes.io/"+what+"-name"] = []string{ref.Name}
		}
		if ref != nil && ref.UID != "" {
			u.Extra["authentication.kubernetes.io/"+what+"-uid"] = []string{string(ref.UID)}
		}
	}
	u.Extra = map[string][]string{}
	extra(k.Pod, "pod")
	extra(k.Node, "node")
	if c.ID != "" {
		u.Extra[credentialID] = []string{"JTI=" + c.ID}
	}
	return u
}

// account is a service account as a user.
func account(namespace string, sa Ref) registry.User {
	return registry.User{
		Name: "system:serviceaccount:" + namespace + ":" + sa.Name, UID: string(sa.UID),
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace},
	}
}

// maxSigned bounds how many tokens are remembered.
const maxSigned = 16 << 10

// signed remembers tokens whose signature was found to be good, as a client
// sends the same one with every request.
type signed struct {
	mu sync.RWMutex
	by map[[sha256.Size]byte]*Claims
}

// claims are what a token says that is a's; nil where it is not.
func (s *signed) claims(token string, a *ServiceAccounts) (*Claims, error) {
	sum := sha256.Sum256([]byte(token))
	s.mu.RLock()
	c := s.by[sum]
	s.mu.RUnlock()
	if c != nil || !a.ours(token) {
		return c, nil
	}
	c, err := verify(token, a.Keys)
	if err != nil || c == nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil || len(s.by) >= maxSigned {
		s.by = map[[sha256.Size]byte]*Claims{}
	}
	s.by[sum] = c
	return c, nil
}

func verify(token string, keys *Keys) (*Claims, error) {
	jws, err := jose.ParseSignedCompact(token, algorithms)
	if err != nil || len(jws.Signatures) != 1 {
		return nil, nil //nolint:nilerr // it is no token of ours, which others may know
	}
	candidates := keys.named(jws.Signatures[0].Header.KeyID)
	if len(candidates) == 0 {
		return nil, errors.New("invalid signature, no keys found")
	}
	var errs []error
	for _, k := range candidates {
		payload, err := jws.Verify(k.public)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c := &Claims{}
		if err := json.Unmarshal(payload, c); err != nil {
			return nil, err
		}
		if c.Issuer == legacyIssuer {
			err = json.Unmarshal(payload, &c.Legacy)
		}
		return c, err
	}
	return nil, errors.Join(errs...)
}
