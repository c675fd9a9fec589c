package crd_test

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/registry/registrytest"
)

// A hook converts between an address in one field and one in two.
type hook struct {
	t     *testing.T
	calls atomic.Int64
	fail  atomic.Pointer[string]
}

// ServeHTTP is part of http.Handler.
func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.calls.Add(1)
	var review apiextensionsv1.ConversionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		h.t.Error(err)
	}
	review.Response = &apiextensionsv1.ConversionResponse{UID: review.Request.UID, Result: metav1.Status{Status: metav1.StatusSuccess}}
	for _, raw := range review.Request.Objects {
		var u unstructured.Unstructured
		if err := u.UnmarshalJSON(raw.Raw); err != nil {
			h.t.Error(err)
		}
		if strings.HasSuffix(review.Request.DesiredAPIVersion, "/v2") {
			host, port, _ := strings.Cut(fmt.Sprint(u.Object["hostPort"]), ":")
			u.Object["host"], u.Object["port"] = host, port
			delete(u.Object, "hostPort")
		} else {
			u.Object["hostPort"] = fmt.Sprintf("%v:%v", u.Object["host"], u.Object["port"])
			delete(u.Object, "host")
			delete(u.Object, "port")
		}
		u.SetAPIVersion(review.Request.DesiredAPIVersion)
		u.SetFinalizers([]string{"example.com/not-its-business"})
		review.Response.ConvertedObjects = append(review.Response.ConvertedObjects, runtime.RawExtension{Object: &u})
	}
	if text := h.fail.Load(); text != nil {
		review.Response.Result = metav1.Status{Status: metav1.StatusFailure, Message: *text}
	}
	review.Request = nil
	if err := json.NewEncoder(w).Encode(&review); err != nil {
		h.t.Error(err)
	}
}

const addresses = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: addresses.hook.example.com}
spec:
  group: hook.example.com
  scope: Namespaced
  names: {plural: addresses, kind: Address}
  conversion: {strategy: Webhook, webhook: {conversionReviewVersions: [v2, v1], clientConfig: {url: "%s/convert", caBundle: %s}}}
  versions:
  - name: v1
    served: true
    storage: true
    selectableFields: [{jsonPath: .hostPort}]
    schema: {openAPIV3Schema: {type: object, properties: {hostPort: {type: string}}}}
  - name: v2
    served: true
    storage: false
    selectableFields: [{jsonPath: .host}, {jsonPath: .port}]
    schema: {openAPIV3Schema: {type: object, properties: {host: {type: string}, port: {type: string}}}}
`

func TestWebhookConverts(t *testing.T) {
	h := &hook{t: t}
	server := httptest.NewTLSServer(h)
	defer server.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	c := client(t, registrytest.Start(t))
	define(t, c, fmt.Sprintf(addresses, server.URL, base64.StdEncoding.EncodeToString(ca)))
	v1 := schema.GroupVersionResource{Group: "hook.example.com", Version: "v1", Resource: "addresses"}
	one, two := c.Resource(v1).Namespace("default"), c.Resource(v1.GroupResource().WithVersion("v2")).Namespace("default")
	for i, text := range []string{
		`{apiVersion: hook.example.com/v1, kind: Address, metadata: {name: a}, hostPort: "x:1"}`,
		`{apiVersion: hook.example.com/v1, kind: Address, metadata: {name: b}, hostPort: "y:2"}`,
		`{apiVersion: hook.example.com/v2, kind: Address, metadata: {name: c}, host: x, port: "3"}`,
	} {
		in := one
		if i == 2 {
			in = two
		}
		if _, err := in.Create(t.Context(), object(t, text), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := one.Get(t.Context(), "c", metav1.GetOptions{})
	if err != nil || got.Object["hostPort"] != "x:3" {
		t.Errorf("c in v1 is %v: %v", got, err)
	}
	if got, err = two.Get(t.Context(), "a", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	if got.Object["host"] != "x" || got.Object["port"] != "1" || len(got.GetFinalizers()) > 0 {
		t.Errorf("a in v2 is %v", got)
	}
	before := h.calls.Load()
	list, err := two.List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 3 || list.Items[1].Object["port"] != "2" {
		t.Errorf("list in v2: %v: %v", list, err)
	}
	if n := h.calls.Load() - before; n != 1 {
		t.Errorf("the webhook was called %d times for one list", n)
	}
	if list, err = two.List(t.Context(), metav1.ListOptions{FieldSelector: "host=x,port=3"}); err != nil || len(list.Items) != 1 || list.Items[0].GetName() != "c" {
		t.Errorf("selected %v: %v", list, err)
	}
	if list, err = one.List(t.Context(), metav1.ListOptions{FieldSelector: "hostPort=y:2"}); err != nil || len(list.Items) != 1 || list.Items[0].GetName() != "b" {
		t.Errorf("selected %v: %v", list, err)
	}
	w, err := two.Watch(t.Context(), metav1.ListOptions{FieldSelector: "host=y"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if e := <-w.ResultChan(); e.Object.(*unstructured.Unstructured).Object["port"] != "2" {
		t.Errorf("event %v", e)
	}
	text := "not today"
	h.fail.Store(&text)
	_, err = two.Get(t.Context(), "a", metav1.GetOptions{})
	if want := "conversion webhook for hook.example.com/v1, Kind=Address failed: not today"; err == nil || err.Error() != want || apierrors.ReasonForError(err) != metav1.StatusReasonUnknown {
		t.Errorf("error %v, want %q", err, want)
	}
}
