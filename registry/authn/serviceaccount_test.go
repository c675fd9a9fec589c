package authn_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/authn"
)

// things are the objects that tokens are bound to, by plural/namespace/name.
type things map[string]apis.Object

func (o things) Lookup(_ context.Context, gr schema.GroupResource, namespace, name string) (apis.Object, error) {
	if obj := o[gr.Resource+"/"+registry.Key(namespace, name)]; obj != nil {
		return obj, nil
	}
	return nil, apierrors.NewNotFound(gr, name)
}

func (o things) Trace(ctx context.Context, gr schema.GroupResource, namespace, name string) (types.UID, time.Time, error) {
	obj, err := o.Lookup(ctx, gr, namespace, name)
	if err != nil {
		return "", time.Time{}, err
	}
	var gone time.Time
	if t := obj.GetDeletionTimestamp(); t != nil {
		gone = t.Time
	}
	return obj.GetUID(), gone, nil
}

// noon is when these tests are.
var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

const issuer = "https://kubernetes.default.svc"

func meta(namespace, name, uid string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(uid)}
}

func cluster() things {
	return things{
		"serviceaccounts/ns/bot": &corev1.ServiceAccount{ObjectMeta: meta("ns", "bot", "sa1")},
		"pods/ns/web":            &corev1.Pod{ObjectMeta: meta("ns", "web", "p1")},
		"secrets/ns/s":           &corev1.Secret{ObjectMeta: meta("ns", "s", "s1")},
		"nodes/n1":               &corev1.Node{ObjectMeta: meta("", "n1", "n1")},
	}
}

func claims() authn.Claims {
	return authn.Claims{
		Audience: []string{"api"}, Expiry: noon.Add(time.Hour).Unix(), IssuedAt: noon.Unix(), NotBefore: noon.Unix(), ID: "j1",
		Subject:    "system:serviceaccount:ns:bot",
		Kubernetes: authn.Binding{Namespace: "ns", ServiceAccount: authn.Ref{Name: "bot", UID: "sa1"}},
	}
}

func newSigner(t testing.TB, key crypto.Signer) *authn.Signer {
	t.Helper()
	s, err := authn.NewSigner(key, issuer)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sign(t testing.TB, s *authn.Signer, c authn.Claims) string {
	t.Helper()
	token, err := s.Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func accounts(t testing.TB, objs things, keys ...crypto.PublicKey) *authn.ServiceAccounts {
	t.Helper()
	a := &authn.ServiceAccounts{Issuers: []string{issuer}, Audiences: []string{"api"}, Keys: &authn.Keys{}, Objects: objs, Now: func() time.Time { return noon }}
	for _, k := range keys {
		if err := a.Keys.Add(k); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

func TestServiceAccountUser(t *testing.T) {
	s := newSigner(t, newKey(t))
	c := claims()
	c.Kubernetes.Pod, c.Kubernetes.Node = &authn.Ref{Name: "web", UID: "p1"}, &authn.Ref{Name: "n9", UID: "gone"}
	id, ok, err := accounts(t, cluster(), s.Public()).Token(t.Context(), sign(t, s, c), nil)
	want := authn.Identity{Audiences: []string{"api"}, User: registry.User{
		Name: "system:serviceaccount:ns:bot", UID: "sa1", Groups: []string{"system:serviceaccounts", "system:serviceaccounts:ns"},
		Extra: map[string][]string{
			"authentication.kubernetes.io/credential-id": {"JTI=j1"},
			"authentication.kubernetes.io/pod-name":      {"web"}, "authentication.kubernetes.io/pod-uid": {"p1"},
			"authentication.kubernetes.io/node-name": {"n9"}, "authentication.kubernetes.io/node-uid": {"gone"},
		},
	}}
	if diff := cmp.Diff(want, id); diff != "" || !ok || err != nil {
		t.Errorf("%v %v: %s", ok, err, diff)
	}
}

// TestServiceAccountToken changes one thing about a good token, or about what
// it is bound to.
func TestServiceAccountToken(t *testing.T) {
	key, other := newKey(t), newKey(t)
	s := newSigner(t, key)
	recently, longAgo := metav1.NewTime(noon.Add(-30*time.Second)), metav1.NewTime(noon.Add(-2*time.Minute))
	for _, c := range []struct {
		name   string
		change func(*authn.Claims, things)
		auds   []string
		want   string // an error
	}{
		{name: "good", change: func(*authn.Claims, things) {}},
		{"for another", func(*authn.Claims, things) {}, []string{"vault"}, `token audiences ["api"] is invalid for the target audiences ["vault"]`},
		{"for several", func(c *authn.Claims, _ things) { c.Audience = []string{"vault", "api"} }, []string{"vault"}, ""},
		{name: "without audiences", change: func(c *authn.Claims, _ things) { c.Audience = nil }},
		{"expired", func(c *authn.Claims, _ things) { c.Expiry = noon.Add(-61 * time.Second).Unix() }, nil, "service account token has expired"},
		{name: "just expired", change: func(c *authn.Claims, _ things) { c.Expiry = noon.Add(-59 * time.Second).Unix() }},
		{"early", func(c *authn.Claims, _ things) { c.NotBefore = noon.Add(2 * time.Minute).Unix() }, nil, "service account token is not valid yet"},
		{"of the future", func(c *authn.Claims, _ things) { c.IssuedAt = noon.Add(2 * time.Minute).Unix() }, nil, "service account token is issued in the future"},
		{"account gone", func(_ *authn.Claims, o things) { delete(o, "serviceaccounts/ns/bot") }, nil, `serviceaccounts "bot" not found`},
		{"account another", func(_ *authn.Claims, o things) { o["serviceaccounts/ns/bot"].SetUID("sa2") }, nil, "service account UID (sa2) does not match claim (sa1)"},
		{"account going long", func(_ *authn.Claims, o things) { o["serviceaccounts/ns/bot"].SetDeletionTimestamp(&longAgo) }, nil, "service account ns/bot has been deleted"},
		{name: "account going", change: func(_ *authn.Claims, o things) { o["serviceaccounts/ns/bot"].SetDeletionTimestamp(&recently) }},
		{"pod gone", func(c *authn.Claims, _ things) { c.Kubernetes.Pod = &authn.Ref{Name: "no", UID: "x"} }, nil, "service account token has been invalidated"},
		{"pod another", func(c *authn.Claims, _ things) { c.Kubernetes.Pod = &authn.Ref{Name: "web", UID: "x"} }, nil, "pod UID (p1) does not match service account pod ref claim (x)"},
		{"secret another", func(c *authn.Claims, _ things) { c.Kubernetes.Secret = &authn.Ref{Name: "s", UID: "x"} }, nil, "secret UID (s1) does not match service account secret ref claim (x)"},
		{"node another", func(c *authn.Claims, _ things) { c.Kubernetes.Node = &authn.Ref{Name: "n1", UID: "x"} }, nil, "node UID (n1) does not match service account node ref claim (x)"},
		{name: "node", change: func(c *authn.Claims, _ things) { c.Kubernetes.Node = &authn.Ref{Name: "n1", UID: "n1"} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			claim, objs := claims(), cluster()
			c.change(&claim, objs)
			_, ok, err := accounts(t, objs, other.Public(), key.Public()).Token(t.Context(), sign(t, s, claim), c.auds)
			switch {
			case c.want == "" && (!ok || err != nil):
				t.Errorf("got %v: %v", ok, err)
			case c.want != "" && (ok || err == nil || err.Error() != c.want):
				t.Errorf("got %v: %v; want %s", ok, err, c.want)
			}
		})
	}
}

// TestSignature asks about tokens that are forged, or of somebody else.
func TestSignature(t *testing.T) {
	s, stranger := newSigner(t, newKey(t)), newSigner(t, newKey(t))
	a := accounts(t, cluster(), s.Public())
	good := sign(t, s, claims())
	parts := strings.Split(good, ".")
	forged := claims()
	forged.Kubernetes.ServiceAccount.Name = "admin"
	body := strings.Split(sign(t, stranger, forged), ".")[1]
	foreign, err := authn.NewSigner(newKey(t), "https://elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		token string
		ours  bool // so that there is an error
	}{
		"stranger's":      {sign(t, stranger, claims()), true},
		"other claims":    {parts[0] + "." + body + "." + parts[2], true},
		"no signature":    {parts[0] + "." + parts[1] + ".", true},
		"unsigned":        {"eyJhbGciOiJub25lIn0." + parts[1] + ".", false},
		"another issuer":  {sign(t, foreign, claims()), false},
		"no token at all": {"secret", false},
		"nearly a token":  {"a.b.c", false},
	} {
		_, ok, err := a.Token(t.Context(), c.token, nil)
		if ok || (err != nil) != c.ours {
			t.Errorf("%s: %v %v", name, ok, err)
		}
	}
	if _, ok, err := a.Token(t.Context(), good, nil); !ok || err != nil {
		t.Errorf("good: %v %v", ok, err)
	}
}

// TestKeys reads keys of several kinds from files, and signs and checks with
// each; a token by any of them is good, as it must be while keys change.
func TestKeys(t *testing.T) {
	dir := t.TempDir()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	var public []string
	var tokens []string
	for i, key := range []crypto.Signer{rsaKey, newKey(t)} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		pub, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		private, shown := filepath.Join(dir, string(rune('a'+i))+".key"), filepath.Join(dir, string(rune('a'+i))+".pub")
		for path, block := range map[string]*pem.Block{private: {Type: "PRIVATE KEY", Bytes: der}, shown: {Type: "PUBLIC KEY", Bytes: pub}} {
			if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := authn.ReadSigner(private, issuer)
		if err != nil {
			t.Fatal(err)
		}
		public, tokens = append(public, shown), append(tokens, sign(t, s, claims()))
	}
	a := accounts(t, cluster())
	if a.Keys, err = authn.ReadKeys(append(public, public[0])...); err != nil {
		t.Fatal(err)
	}
	for i, token := range tokens {
		if _, ok, err := a.Token(t.Context(), token, nil); !ok || err != nil {
			t.Errorf("token %d: %v %v", i, ok, err)
		}
	}
	paths, err := authn.Discovery(issuer, "https://1.2.3.4/openid/v1/jwks", a.Keys)
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	paths["/openid/v1/jwks"].ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(rec.Body.Bytes(), &set); err != nil || len(set.Keys) != 2 || !set.Keys[0].IsPublic() || rec.Header().Get("Content-Type") != "application/jwk-set+json" {
		t.Errorf("keys %s: %v", rec.Body, err)
	}
	rec = httptest.NewRecorder()
	paths["/.well-known/openid-configuration"].ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	want := `{"issuer":"` + issuer + `","jwks_uri":"https://1.2.3.4/openid/v1/jwks","response_types_supported":["id_token"],` +
		`"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["ES256","RS256"]}`
	if rec.Body.String() != want {
		t.Errorf("got  %s\nwant %s", rec.Body, want)
	}
}

func TestLegacyToken(t *testing.T) {
	key := newKey(t)
	legacy, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := legacy.Sign([]byte(`{"sub":"system:serviceaccount:ns:bot","iss":"kubernetes/serviceaccount",` +
		`"kubernetes.io/serviceaccount/namespace":"ns","kubernetes.io/serviceaccount/secret.name":"s",` +
		`"kubernetes.io/serviceaccount/service-account.name":"bot","kubernetes.io/serviceaccount/service-account.uid":"sa1"}`))
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	objs := cluster()
	secret := objs["secrets/ns/s"].(*corev1.Secret)
	secret.Data = map[string][]byte{"token": []byte(token)}
	a := accounts(t, objs, key.Public())
	var used string
	a.Used = func(_ context.Context, namespace, name, day string) { used = namespace + "/" + name + " " + day }
	id, ok, err := a.Token(t.Context(), token, nil)
	if !ok || err != nil || id.Name != "system:serviceaccount:ns:bot" || used != "ns/s 2030-01-01" {
		t.Errorf("%v %v: %v, used %q", id, ok, err, used)
	}
	secret.Labels = map[string]string{authn.LastUsed: "2030-01-01"}
	used = ""
	if _, ok, _ := a.Token(t.Context(), token, nil); !ok || used != "" {
		t.Errorf("ok %v, used again %q", ok, used)
	}
	secret.Labels[authn.InvalidSince] = "2029-01-01"
	if _, ok, err := a.Token(t.Context(), token, nil); ok || err == nil {
		t.Error("a token that was marked invalid is good")
	}
	delete(secret.Labels, authn.InvalidSince)
	secret.Data["token"] = []byte("another")
	if _, ok, err := a.Token(t.Context(), token, nil); ok || err == nil || err.Error() != "Token does not match server's copy" {
		t.Errorf("%v %v", ok, err)
	}
	delete(objs, "secrets/ns/s")
	if _, ok, err := a.Token(t.Context(), token, nil); ok || err == nil || err.Error() != "Token has been invalidated" {
		t.Errorf("%v %v", ok, err)
	}
}

func BenchmarkToken(b *testing.B) {
	s := newSigner(b, newKey(b))
	a := accounts(b, cluster(), s.Public())
	c := claims()
	c.Kubernetes.Pod = &authn.Ref{Name: "web", UID: "p1"}
	token := sign(b, s, c)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, err := a.Token(b.Context(), token, nil); !ok {
			b.Fatal(err)
		}
	}
}
