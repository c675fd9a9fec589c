package server_test

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/registry/registrytest"
)

// ask sends a request and fails the test where the server is at a loss: what
// a client sends is never the server's fault.
func ask(t *testing.T, s *registrytest.Server, method, path, media, body string) {
	req, err := http.NewRequestWithContext(t.Context(), method, "http://knarr"+path, strings.NewReader(body))
	if err != nil {
		t.Skip(err)
	}
	req.Header.Set("Content-Type", media)
	resp, err := s.As(registrytest.Admin).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // it is read
	// As upstream, a code of 500 without this reason is what apply answers to
	// what does not fit the schema.
	text, err := io.ReadAll(resp.Body)
	if err != nil || bytes.Contains(text, []byte(metav1.StatusReasonInternalError)) {
		t.Errorf("%s %s: %d, %v: %s", method, path, resp.StatusCode, err, text)
	}
}

const configMaps = "/api/v1/namespaces/default/configmaps"

// FuzzQuery asks lists with selectors and continue tokens.
func FuzzQuery(f *testing.F) {
	for _, seed := range [][3]string{
		{"a=b,c!=d,e,!f", "metadata.name=a", ""},
		{"a in (b,c),d notin (e)", "metadata.namespace!=default", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiL2EifQ"},
		{"a in (", "a=b\\,c", "eyJ2Ijoi"},
		{"", "", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiIvIn0"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	s := registrytest.Run(f)
	f.Fuzz(func(t *testing.T, labels, fields, token string) {
		q := url.Values{"labelSelector": {labels}, "fieldSelector": {fields}, "limit": {"1"}, "continue": {token}}
		ask(t, s, http.MethodGet, configMaps+"?"+q.Encode(), "", "")
	})
}

// FuzzCreate sends bodies of each type.
func FuzzCreate(f *testing.F) {
	for _, seed := range [][2]string{
		{"application/json", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"v"}}`},
		{"application/yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: &m {name: b}\ndata: {<<: *m, k: !!binary aGk=}\n"},
		{"application/vnd.kubernetes.protobuf", "k8s\x00\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x10\x0a\x03\x0a\x01c\x12\x09\x0a\x01k\x12\x01v"},
		{"application/json", `{"metadata":{"name":"a","ownerReferences":[{}],"managedFields":[{}]}}`},
	} {
		f.Add(seed[0], seed[1])
	}
	s := registrytest.Run(f)
	f.Fuzz(func(t *testing.T, media, body string) {
		ask(t, s, http.MethodPost, configMaps+"?dryRun=All", media, body)
	})
}

// FuzzPatch sends patches of each type, to what is there or, of those that
// apply, to what is not.
func FuzzPatch(f *testing.F) {
	for _, seed := range [][2]string{
		{"json-patch+json", `[{"op":"add","path":"/data","value":{"k":"v"}},{"op":"copy","from":"/data","path":"/data/j"},{"op":"test","path":"/kind","value":1}]`},
		{"merge-patch+json", `{"data":{"k":null},"metadata":{"labels":{"a":"b"}}}`},
		{"strategic-merge-patch+json", `{"metadata":{"$patch":"replace","finalizers":["a/b"],"$setElementOrder/finalizers":["a/b"],"$retainKeys":["name"]}}`},
		{"strategic-merge-patch+json", `{"data":{"$patch":"delete"},"metadata":{"$deleteFromPrimitiveList/finalizers":["a/b"]}}`},
		{"apply-patch+yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: v}\n"},
		{"apply-patch+yaml", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","ownerReferences":[{"uid":"u"},{"uid":"u"}]}}`},
	} {
		f.Add(seed[0], seed[1])
	}
	s := registrytest.Run(f)
	f.Fuzz(func(t *testing.T, media, body string) {
		query := "?dryRun=All"
		if strings.HasPrefix(media, "apply") {
			query += "&fieldManager=fuzz"
		}
		ask(t, s, http.MethodPatch, "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"+query, "application/"+media, body)
		ask(t, s, http.MethodPatch, configMaps+"/a"+query, "application/"+media, body)
	})
}
