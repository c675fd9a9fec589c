package assembly

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/authn"
	"github.com/knarr-dev/knarr/registry/memory"
)

// TestEarly asks a server that has not begun: it says when to come again, and
// tells of its health all the same.
func TestEarly(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Store: memory.New(), Address: "localhost:6443", Accounts: Accounts{Issuers: []string{"https://issuer"}, Signer: key}})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(path string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(authn.WithUser(t.Context(), registry.User{Name: "somebody"}), http.MethodGet, path, http.NoBody)
		w := httptest.NewRecorder()
		s.Handler.ServeHTTP(w, r)
		return w
	}
	w := ask("/api/v1/nodes")
	var status metav1.Status
	if err := json.Unmarshal(w.Body.Bytes(), &status); err != nil {
		t.Fatalf("%v in %s", err, w.Body)
	}
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" || status.Reason != metav1.StatusReasonServiceUnavailable {
		t.Errorf("%d %v %+v", w.Code, w.Header(), status)
	}
	if w := ask("/livez/ping"); w.Code != http.StatusOK {
		t.Errorf("/livez/ping: %d", w.Code)
	}
}
