package authn

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/knarr-dev/knarr/registry"
)

// credentialID is what tells in a user's extra which credentials were used.
const credentialID = "authentication.kubernetes.io/credential-id"

// Clients are the holders of certificates that an authority has signed: the
// common name is the user's, the organizations are the groups.
type Clients struct {
	authority *Bundle
	proven    proven
}

// NewClients returns the clients whose certificates the authority has signed.
func NewClients(authority *Bundle) *Clients { return &Clients{authority: authority} }

func (c *Clients) user(r *http.Request) (registry.User, bool, error) {
	p, ok, err := c.proven.certificate(r, c.authority)
	if err != nil || !ok || p.user.Name == "" {
		return registry.User{}, false, err
	}
	return p.user, true, nil
}

// A Proxy authenticates users itself and says in headers who they are. It is
// believed if its own certificate is signed by the authority and has one of
// the names, if there are any.
type Proxy struct {
	Authority *Bundle
	Names     []string
	Headers   ProxyHeaders

	proven proven
}

// ProxyHeaders are the headers that a proxy puts a user's name and so on in.
type ProxyHeaders struct {
	User, UID, Group []string
	Extra            []string // prefixes
}

// user reads the user from the headers and takes them out.
func (p *Proxy) user(r *http.Request) (registry.User, bool, error) {
	cert, ok, err := p.proven.certificate(r, p.Authority)
	if err != nil || !ok {
		return registry.User{}, false, err
	}
	if len(p.Names) > 0 && !slices.Contains(p.Names, cert.name) {
		return registry.User{}, false, fmt.Errorf("x509: subject with cn=%s is not in the allowed list", cert.name)
	}
	user := registry.User{Name: first(r.Header, p.Headers.User), UID: first(r.Header, p.Headers.UID)}
	if user.Name == "" {
		return registry.User{}, false, nil
	}
	for _, name := range p.Headers.Group {
		user.Groups = append(user.Groups, r.Header.Values(name)...)
	}
	for _, prefix := range p.Headers.Extra {
		for header, values := range r.Header {
			if len(header) < len(prefix) || !strings.EqualFold(header[:len(prefix)], prefix) {
				continue
			}
			if user.Extra == nil {
				user.Extra = map[string][]string{}
			}
			key := strings.ToLower(header[len(prefix):])
			if plain, err := url.PathUnescape(key); err == nil {
				key = plain
			}
			user.Extra[key] = append(user.Extra[key], values...)
			r.Header.Del(header)
		}
	}
	for _, name := range slices.Concat(p.Headers.User, p.Headers.UID, p.Headers.Group) {
		r.Header.Del(name)
	}
	return user, true, nil
}

func first(h http.Header, names []string) string {
	for _, name := range names {
		if v := h.Get(name); v != "" {
			return v
		}
	}
	return ""
}

// maxProven bounds how many certificates are remembered.
const maxProven = 4096

// proven remembers certificates that were found to be good, as every request
// on a connection shows the same.
type proven struct {
	mu sync.Mutex
	by map[[sha256.Size]byte]proof
}

// A proof is what a certificate that is signed by one of roots says.
type proof struct {
	roots *x509.CertPool
	until time.Time
	name  string // the common name
	user  registry.User
}

// certificate is what the request's certificate proves, false if it has none.
func (p *proven) certificate(r *http.Request, authority *Bundle) (proof, bool, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return proof{}, false, nil
	}
	leaf, roots := r.TLS.PeerCertificates[0], authority.Pool()
	sum := sha256.Sum256(leaf.Raw)
	now := time.Now()
	p.mu.Lock()
	known, ok := p.by[sum]
	p.mu.Unlock()
	if ok && known.roots == roots && now.Before(known.until) {
		return known, true, nil
	}
	found, err := prove(leaf, r.TLS.PeerCertificates[1:], roots)
	if err != nil {
		return proof{}, false, err
	}
	if found.user.Name != "" {
		found.user.Extra = map[string][]string{credentialID: {"X509SHA256=" + hex.EncodeToString(sum[:])}}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by == nil || len(p.by) >= maxProven {
		p.by = map[[sha256.Size]byte]proof{}
	}
	p.by[sum] = found
	return found, true, nil
}

func prove(leaf *x509.Certificate, between []*x509.Certificate, roots *x509.CertPool) (proof, error) {
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, c := range between {
		opts.Intermediates.AddCert(c)
	}
	chains, err := leaf.Verify(opts)
	if err != nil {
		return proof{}, fmt.Errorf("verify certificate of %q: %w", leaf.Subject.CommonName, err)
	}
	uid, err := uidOf(leaf)
	if err != nil {
		return proof{}, err
	}
	until := leaf.NotAfter
	for _, c := range chains[0] {
		if c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	name := leaf.Subject.CommonName
	return proof{roots: roots, until: until, name: name, user: registry.User{Name: name, UID: uid, Groups: leaf.Subject.Organization}}, nil
}

// uidType is the part of a subject that holds a user's UID.
var uidType = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57683, 2}

func uidOf(c *x509.Certificate) (string, error) {
	var uids []string
	for _, part := range c.Subject.Names {
		if !part.Type.Equal(uidType) {
			continue
		}
		uid, ok := part.Value.(string)
		if !ok || uid == "" {
			return "", errors.New("the UID in the certificate is no text")
		}
		uids = append(uids, uid)
	}
	if len(uids) > 1 {
		return "", fmt.Errorf("expected 1 UID, but found multiple: %v", uids)
	}
	return strings.Join(uids, ""), nil
}
