package serve

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/knarr-dev/knarr/conformance/images/store"
)

const (
	public = "registry.k8s.io/e2e/agnhost"
	secret = "gcr.io/private/agnhost"
)

func image(t *testing.T) v1.Image {
	t.Helper()
	img, err := random.Image(512, 2)
	if err != nil {
		t.Fatal(err)
	}
	return mutate.MediaType(img, types.OCIManifestSchema1)
}

func start(t *testing.T) (url string, open, closed v1.Image) {
	t.Helper()
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	open, closed = image(t), image(t)
	for name, img := range map[string]v1.Image{public + ":1": open, secret + ":1": closed} {
		if err := s.Put(name, "key", img); err != nil {
			t.Fatal(err)
		}
	}
	h := httptest.NewServer(&Registry{Store: s, Private: []string{secret}, User: "user", Password: "right"})
	t.Cleanup(h.Close)
	return h.URL, open, closed
}

func ask(t *testing.T, method, url, password string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if password != "" {
		r.SetBasicAuth("user", password)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header, string(text)
}

func digest(t *testing.T, img v1.Image) string {
	t.Helper()
	hash, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return hash.String()
}

func TestServe(t *testing.T) {
	url, open, closed := start(t)
	manifest, err := open.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	layer := manifest.Layers[0].Digest.String()
	for _, c := range []struct {
		name, method, path, password string
		status                       int
		body                         string
	}{
		{"version", "GET", "/v2/", "", 200, ""},
		{"tag", "GET", "/v2/e2e/agnhost/manifests/1?ns=registry.k8s.io", "", 200, layer},
		{"tag, head", "HEAD", "/v2/e2e/agnhost/manifests/1?ns=registry.k8s.io", "", 200, ""},
		{"digest", "GET", "/v2/e2e/agnhost/manifests/" + digest(t, open) + "?ns=registry.k8s.io", "", 200, layer},
		{"layer", "GET", "/v2/e2e/agnhost/blobs/" + layer + "?ns=registry.k8s.io", "", 200, ""},
		{"no registry named", "GET", "/v2/e2e/agnhost/manifests/1", "", 200, layer},
		{"registry in the path", "GET", "/v2/registry.k8s.io/e2e/agnhost/manifests/1", "", 200, layer},
		{"another registry", "GET", "/v2/e2e/agnhost/manifests/1?ns=quay.io", "", 404, "MANIFEST_UNKNOWN"},
		{"no such tag", "GET", "/v2/e2e/agnhost/manifests/2?ns=registry.k8s.io", "", 404, "MANIFEST_UNKNOWN"},
		{"another's manifest", "GET", "/v2/e2e/agnhost/manifests/" + digest(t, closed) + "?ns=registry.k8s.io", "", 404, "MANIFEST_UNKNOWN"},
		{"another's blob", "GET", "/v2/e2e/agnhost/blobs/" + digest(t, closed) + "?ns=registry.k8s.io", "", 404, "BLOB_UNKNOWN"},
		{"no digest", "GET", "/v2/e2e/agnhost/blobs/../../index.json?ns=registry.k8s.io", "", 404, ""},
		{"private", "GET", "/v2/private/agnhost/manifests/1?ns=gcr.io", "", 401, "UNAUTHORIZED"},
		{"private, wrong password", "GET", "/v2/private/agnhost/manifests/1?ns=gcr.io", "wrong", 401, "UNAUTHORIZED"},
		{"private, right password", "GET", "/v2/private/agnhost/manifests/1?ns=gcr.io", "right", 200, "schemaVersion"},
		{"push", "PUT", "/v2/e2e/agnhost/manifests/1?ns=registry.k8s.io", "", 405, "read only"},
		{"something else", "GET", "/v2/e2e/agnhost/tags/list?ns=registry.k8s.io", "", 404, ""},
		{"too short", "GET", "/v2/agnhost", "", 404, "NAME_UNKNOWN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, header, body := ask(t, c.method, url+c.path, c.password)
			if status != c.status || !strings.Contains(body, c.body) {
				t.Errorf("status %d, %s", status, body)
			}
			if c.status == 401 && !strings.HasPrefix(header.Get("WWW-Authenticate"), "Basic ") {
				t.Errorf("it asks for no password: %v", header)
			}
		})
	}
	_, header, body := ask(t, "GET", url+"/v2/e2e/agnhost/manifests/1?ns=registry.k8s.io", "")
	if got := header.Get("Docker-Content-Digest"); got != digest(t, open) {
		t.Errorf("the digest is said to be %s", got)
	}
	var m struct{ MediaType string }
	if err := json.Unmarshal([]byte(body), &m); err != nil || m.MediaType != header.Get("Content-Type") {
		t.Errorf("type %s, header %s, %v", m.MediaType, header.Get("Content-Type"), err)
	}
}

func TestMirror(t *testing.T) {
	dir := t.TempDir()
	hosts := Hosts([]string{"registry.k8s.io/a:1", "registry.k8s.io/b/c:1", "gcr.io/d:1"})
	if strings.Join(hosts, " ") != "registry.k8s.io gcr.io" {
		t.Errorf("hosts %v", hosts)
	}
	for range 2 { // the second time over what is there
		if err := Mirror(dir, "10.0.0.1:5005", hosts); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "registry.k8s.io", "hosts.toml"))
	want := made + "server = \"https://registry.k8s.io\"\n\n[host.\"http://10.0.0.1:5005\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
	if err != nil || string(text) != want {
		t.Errorf("got %s, %v\nwant %s", text, err, want)
	}
	theirs := filepath.Join(dir, "gcr.io", "hosts.toml")
	if err := os.WriteFile(theirs, []byte("server = \"https://mine\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Mirror(dir, "10.0.0.1:5005", hosts); err == nil || !strings.Contains(err.Error(), "somebody else's") {
		t.Errorf("over a file of somebody else's: %v", err)
	}
}
