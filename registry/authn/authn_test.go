package authn_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/authn"
)

// An authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	a.cert = a.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true}, a.key)
	return a
}

// sign makes a certificate that is good for an hour.
func (a *authority) sign(t testing.TB, c *x509.Certificate, key crypto.Signer) *x509.Certificate {
	t.Helper()
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent := a.cert
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func (a *authority) client(t testing.TB, name pkix.Name) *x509.Certificate {
	return a.sign(t, &x509.Certificate{Subject: name, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, newKey(t))
}

func (a *authority) file(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.crt")
	a.write(t, path)
	return path
}

func (a *authority) write(t testing.TB, path string) {
	t.Helper()
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func bundle(t testing.TB, a *authority) *authn.Bundle {
	t.Helper()
	b, err := authn.ReadBundle(a.file(t))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// request is one of who has a certificate, if it is not nil.
func request(t testing.TB, cert *x509.Certificate, headers ...string) *http.Request {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "https://knarr/api", nil)
	r.TLS = nil
	if cert != nil {
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	return r
}

// who asks a chain and returns the user's name and groups, "" for nobody.
func who(t *testing.T, c *authn.Chain, r *http.Request) (string, error) {
	t.Helper()
	u, ok, err := c.Request(r)
	if !ok {
		return "", err
	}
	return u.Name + " " + strings.Join(u.Groups, ","), err
}

func TestChain(t *testing.T) {
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	tokens := filepath.Join(t.TempDir(), "tokens.csv")
	if err := os.WriteFile(tokens, []byte("secret,jane,u1,\"dev, ops\"\n,nobody,u2\nbare,joe,u3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := authn.ReadTokenFile(tokens, []string{"api"})
	if err != nil {
		t.Fatal(err)
	}
	proxy := newAuthority(t, "proxy")
	chain := &authn.Chain{
		Clients: authn.NewClients(bundle(t, ours)), Tokens: []authn.Tokens{file}, Anonymous: true,
		Proxy: &authn.Proxy{Authority: bundle(t, proxy), Names: []string{"front"}, Headers: authn.ProxyHeaders{
			User: []string{"X-Remote-User"}, Group: []string{"X-Remote-Group"}, UID: []string{"X-Remote-Uid"}, Extra: []string{"X-Remote-Extra-"},
		}},
	}
	ann := ours.client(t, pkix.Name{CommonName: "ann", Organization: []string{"system:masters"}})
	front := proxy.client(t, pkix.Name{CommonName: "front"})
	said := []string{"X-Remote-User: bob", "X-Remote-Group: a", "X-Remote-Group: b"}
	for _, c := range []struct {
		name string
		r    *http.Request
		want string
		bad  bool
	}{
		{"nobody", request(t, nil), "system:anonymous system:unauthenticated", false},
		{"certificate", request(t, ann), "ann system:masters,system:authenticated", false},
		{"foreign certificate", request(t, theirs.client(t, pkix.Name{CommonName: "eve"})), "", true},
		{"certificate of a server", request(t, ours.sign(t, &x509.Certificate{
			Subject: pkix.Name{CommonName: "web"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}, newKey(t))), "", true},
		{"certificate without a name", request(t, ours.client(t, pkix.Name{Organization: []string{"x"}})), "", true},
		{"token", request(t, nil, "Authorization: Bearer secret"), "jane dev,ops,system:authenticated", false},
		{"token in lower case", request(t, nil, "Authorization: bearer bare"), "joe system:authenticated", false},
		{"bad token", request(t, nil, "Authorization: Bearer wrong"), "", true},
		{"good token, bad certificate", request(t, theirs.client(t, pkix.Name{CommonName: "eve"}), "Authorization: Bearer bare"), "joe system:authenticated", false},
		{"proxy", request(t, front, said...), "bob a,b,system:authenticated", false},
		{"headers from who is no proxy", request(t, ann, said...), "ann system:masters,system:authenticated", false},
		{"headers from nobody", request(t, nil, said...), "system:anonymous system:unauthenticated", false},
		{"another client of the proxy's authority", request(t, proxy.client(t, pkix.Name{CommonName: "back"}), said...), "", true},
		{"token in a web socket", request(t, nil, "Upgrade: websocket", "Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io."+
			base64.RawURLEncoding.EncodeToString([]byte("secret"))+", v5.channel.k8s.io"), "jane dev,ops,system:authenticated", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := who(t, chain, c.r)
			if got != c.want || (err != nil) != c.bad {
				t.Errorf("got %q: %v; want %q", got, err, c.want)
			}
			if h := c.r.Header; got != "" && (h.Get("Authorization") != "" || strings.Contains(h.Get("Sec-Websocket-Protocol"), "bearer")) {
				t.Errorf("header is still %v", h)
			}
		})
	}
	chain.Anonymous = false
	if got, err := who(t, chain, request(t, nil)); got != "" || err != nil {
		t.Errorf("without anonymous: %q %v", got, err)
	}
}

// TestCertificateUser reads the less common parts of a certificate, and of a
// proxy's headers.
func TestCertificateUser(t *testing.T) {
	ca := newAuthority(t, "ca")
	chain := &authn.Chain{Clients: authn.NewClients(bundle(t, ca))}
	cert := ca.client(t, pkix.Name{CommonName: "ann", ExtraNames: []pkix.AttributeTypeAndValue{
		{Type: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57683, 2}, Value: "1234"},
	}})
	u, ok, err := chain.Request(request(t, cert))
	if err != nil || !ok || u.UID != "1234" || !strings.HasPrefix(u.Extra["authentication.kubernetes.io/credential-id"][0], "X509SHA256=") {
		t.Errorf("user %+v %v: %v", u, ok, err)
	}
	chain = &authn.Chain{Proxy: &authn.Proxy{Authority: bundle(t, ca), Headers: authn.ProxyHeaders{
		User: []string{"X-Remote-User"}, UID: []string{"X-Remote-Uid"}, Extra: []string{"X-Remote-Extra-"},
	}}}
	r := request(t, cert, "X-Remote-User: bob", "X-Remote-Uid: 7", "X-Remote-Extra-Acme.com%2Fproject: p", "X-Other: stays")
	u, ok, err = chain.Request(r)
	want := registry.User{Name: "bob", UID: "7", Groups: []string{"system:authenticated"}, Extra: map[string][]string{"acme.com/project": {"p"}}}
	if diff := cmp.Diff(want, u); diff != "" || err != nil || !ok {
		t.Errorf("%v: %s", err, diff)
	}
	if len(r.Header) != 1 {
		t.Errorf("header left %v", r.Header)
	}
}

// TestBundleReload replaces an authority: who it had signed for is not known
// any more, and who the new one signs for is. A broken file changes nothing.
func TestBundleReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := newAuthority(t, "old"), newAuthority(t, "next")
		path := old.file(t)
		b, err := authn.ReadBundle(path)
		if err != nil {
			t.Fatal(err)
		}
		chain := &authn.Chain{Clients: authn.NewClients(b)}
		ann, bob := old.client(t, pkix.Name{CommonName: "ann"}), next.client(t, pkix.Name{CommonName: "bob"})
		check := func(cert *x509.Certificate, want string) {
			t.Helper()
			if got, err := who(t, chain, request(t, cert)); got != want {
				t.Errorf("got %q: %v; want %q", got, err, want)
			}
		}
		check(ann, "ann system:authenticated")
		check(bob, "")
		if err := os.WriteFile(path, []byte("garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		check(ann, "ann system:authenticated")
		next.write(t, path)
		time.Sleep(2 * time.Second)
		check(ann, "")
		check(bob, "bob system:authenticated")
		time.Sleep(2 * time.Hour)
		check(bob, "")
	})
}

func TestWithUser(t *testing.T) {
	chain := &authn.Chain{}
	r := request(t, nil, "Authorization: Bearer wrong")
	r = r.WithContext(authn.WithUser(r.Context(), registry.User{Name: "system:kube-scheduler"}))
	if got, err := who(t, chain, r); got != "system:kube-scheduler system:authenticated" || err != nil {
		t.Errorf("got %q: %v", got, err)
	}
}

func TestTokenFileFaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.csv")
	if err := os.WriteFile(path, []byte("secret,jane\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := authn.ReadTokenFile(path, nil); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("got %v", err)
	}
	if _, err := authn.ReadBundle(path); err == nil {
		t.Error("a file without certificates is a bundle")
	}
}

func BenchmarkCertificate(b *testing.B) {
	ca := newAuthority(b, "ca")
	chain := &authn.Chain{Clients: authn.NewClients(bundle(b, ca))}
	r := request(b, ca.client(b, pkix.Name{CommonName: "ann", Organization: []string{"dev"}}))
	r = r.WithContext(context.Background())
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, err := chain.Request(r); !ok {
			b.Fatal(err)
		}
	}
}
