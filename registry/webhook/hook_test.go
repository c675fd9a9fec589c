package webhook_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// A judge answers the questions that come to one path.
type judge func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse

// hooks are webhooks, by path, and what they were asked.
type hooks struct {
	t      *testing.T
	server *httptest.Server
	ca     []byte

	mu     sync.Mutex
	judges map[string]judge
	asked  []string // paths with their queries
	last   map[string]*admissionv1.AdmissionRequest
}

// serve serves webhooks at 127.0.0.1, also by the name of service default/hook.
func serve(t *testing.T, judges map[string]judge) *hooks {
	h := &hooks{t: t, judges: judges, last: map[string]*admissionv1.AdmissionRequest{}}
	h.server = httptest.NewUnstartedServer(h)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"hook.default.svc"}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	h.server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	h.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	h.server.StartTLS()
	t.Cleanup(h.server.Close)
	return h
}

// ServeHTTP is part of http.Handler.
func (h *hooks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		h.t.Error(err)
		return
	}
	if review.APIVersion != "admission.k8s.io/v1" || review.Kind != "AdmissionReview" {
		h.t.Errorf("asked by a %s", review.GroupVersionKind())
	}
	h.mu.Lock()
	h.asked = append(h.asked, r.URL.RequestURI())
	h.last[r.URL.Path] = review.Request
	judge := h.judges[r.URL.Path]
	h.mu.Unlock()
	if judge == nil {
		http.Error(w, "no such hook", http.StatusNotFound)
		return
	}
	review.Response = judge(review.Request)
	if review.Response == nil {
		<-r.Context().Done() // it hangs
		return
	}
	review.Response.UID, review.Request = review.Request.UID, nil
	if err := json.NewEncoder(w).Encode(&review); err != nil {
		h.t.Error(err)
	}
}

// seen is the last question that came to a path, nil if none did.
func (h *hooks) seen(path string) *admissionv1.AdmissionRequest {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last[path]
}

func (h *hooks) paths() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer func() { h.asked = nil }()
	return strings.Join(h.asked, " ")
}

func allow(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Allowed: true}
}

// hang never answers.
func hang(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse { return nil }

func deny(text string) judge {
	return func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: text, Code: http.StatusForbidden, Reason: "Nope"}}
	}
}

// patch lets through, with a JSON patch.
func patch(text string) judge {
	return func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		typ := admissionv1.PatchTypeJSONPatch
		return &admissionv1.AdmissionResponse{Allowed: true, Patch: []byte(text), PatchType: &typ}
	}
}

// configure has a webhook called name asked at its path, by what more says of
// it in YAML.
func (h *hooks) configure(cfg *rest.Config, mutating bool, name, more string) {
	h.t.Helper()
	var hook admissionregistrationv1.MutatingWebhook
	if !strings.Contains(more, "clientConfig") {
		more += `, clientConfig: {url: "` + h.server.URL + `/` + name + `"}`
	}
	text := `{name: ` + name + `.example.com, sideEffects: None, admissionReviewVersions: [v1], ` + more + `}`
	if err := yaml.UnmarshalStrict([]byte(text), &hook); err != nil {
		h.t.Fatal(err)
	}
	hook.ClientConfig.CABundle = h.ca
	c := kubernetes.NewForConfigOrDie(cfg).AdmissionregistrationV1()
	meta := metav1.ObjectMeta{Name: name}
	var err error
	if mutating {
		_, err = c.MutatingWebhookConfigurations().Create(h.t.Context(), &admissionregistrationv1.MutatingWebhookConfiguration{
			ObjectMeta: meta, Webhooks: []admissionregistrationv1.MutatingWebhook{hook},
		}, metav1.CreateOptions{})
	} else {
		_, err = c.ValidatingWebhookConfigurations().Create(h.t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
			ObjectMeta: meta, Webhooks: []admissionregistrationv1.ValidatingWebhook{{
				Name: hook.Name, ClientConfig: hook.ClientConfig, Rules: hook.Rules, FailurePolicy: hook.FailurePolicy, MatchPolicy: hook.MatchPolicy,
				NamespaceSelector: hook.NamespaceSelector, ObjectSelector: hook.ObjectSelector, SideEffects: hook.SideEffects,
				TimeoutSeconds: hook.TimeoutSeconds, AdmissionReviewVersions: hook.AdmissionReviewVersions, MatchConditions: hook.MatchConditions,
			}},
		}, metav1.CreateOptions{})
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// told keeps the warnings of a client.
type told struct{ texts []string }

// HandleWarningHeaderWithContext is part of rest.WarningHandlerWithContext.
func (w *told) HandleWarningHeaderWithContext(_ context.Context, _ int, _, text string) {
	w.texts = append(w.texts, text)
}
