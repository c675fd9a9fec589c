package openapi_test

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/all"
	"github.com/knarr-dev/knarr/registry/discovery"
	"github.com/knarr-dev/knarr/registry/openapi"
	"github.com/knarr-dev/knarr/registry/patch"
)

var docs = sync.OnceValue(func() *openapi.Documents {
	var kinds []*apis.Definition
	for _, g := range all.Groups {
		for i := range g.Resources {
			kinds = append(kinds, &g.Resources[i])
		}
	}
	return openapi.New(discovery.Served(all.Groups, kinds), all.Scheme(), patch.NewOwners(all.Scheme()).Converter, "v1.36.3")
})

func v3(t *testing.T, path string) *spec3.OpenAPI {
	t.Helper()
	text, err := docs().V3(path, false)
	if err != nil {
		t.Fatal(err)
	}
	doc := &spec3.OpenAPI{}
	if err := json.Unmarshal(text, doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestPatchOperation holds what kubectl looks for before it applies: the
// PATCH operation of the kind, with the parameters that validation and dry
// run need, and the strategic patch among the bodies.
func TestPatchOperation(t *testing.T) {
	op := v3(t, "apis/apps/v1").Paths.Paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"].Patch
	if op == nil {
		t.Fatal("no PATCH of deployments")
	}
	have := map[string]bool{}
	for _, p := range op.Parameters {
		have[p.Name] = true
	}
	for _, want := range []string{"fieldValidation", "dryRun", "fieldManager", "force"} {
		if !have[want] {
			t.Errorf("PATCH has no parameter %s", want)
		}
	}
	if op.RequestBody.Content["application/strategic-merge-patch+json"] == nil {
		t.Error("PATCH takes no strategic merge patch")
	}
	gvk, _ := op.Extensions["x-kubernetes-group-version-kind"].(map[string]any)
	if gvk["kind"] != "Deployment" || gvk["group"] != "apps" || gvk["version"] != "v1" {
		t.Errorf("PATCH is of %v", gvk)
	}
}

func TestSchema(t *testing.T) {
	schemas := v3(t, "api/v1").Components.Schemas
	pod := schemas["io.k8s.api.core.v1.PodSpec"]
	containers := pod.Properties["containers"]
	if !strings.HasPrefix(containers.Description, "List of containers belonging to the pod.") {
		t.Errorf("containers are described as %q", containers.Description)
	}
	if len(pod.Required) != 1 || pod.Required[0] != "containers" {
		t.Errorf("a pod's spec requires %v", pod.Required)
	}
	for ext, want := range map[string]string{
		"x-kubernetes-list-type": "map", "x-kubernetes-patch-merge-key": "name", "x-kubernetes-patch-strategy": "merge",
	} {
		if got, _ := containers.Extensions.GetString(ext); got != want {
			t.Errorf("%s of containers is %q", ext, got)
		}
	}
	if keys, _ := containers.Extensions.GetStringSlice("x-kubernetes-list-map-keys"); len(keys) != 1 || keys[0] != "name" {
		t.Errorf("containers are told apart by %v", keys)
	}
	for name, want := range map[string]string{
		"io.k8s.apimachinery.pkg.apis.meta.v1.Time": "date-time", "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "int-or-string",
	} {
		if got := schemas[name].Format; got != want {
			t.Errorf("format of %s is %q", name, got)
		}
	}
	gvks, _ := schemas["io.k8s.api.core.v1.Pod"].Extensions["x-kubernetes-group-version-kind"].([]any)
	if len(gvks) != 1 {
		t.Errorf("Pod is the type of %v", gvks)
	}
}

// TestReferences holds that every schema that is referred to is there.
func TestReferences(t *testing.T) {
	text, err := docs().V2(false)
	if err != nil {
		t.Fatal(err)
	}
	var doc spec.Swagger
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	const ref = `"$ref":"#/definitions/`
	for rest := string(text); ; {
		_, after, found := strings.Cut(rest, ref)
		if !found {
			break
		}
		name, _, _ := strings.Cut(after, `"`)
		if _, ok := doc.Definitions[name]; !ok {
			t.Fatalf("%s is not defined", name)
		}
		rest = after
	}
}

func TestProtobuf(t *testing.T) {
	for _, p := range docs().Paths() {
		data, err := docs().V3(p, true)
		if err != nil {
			t.Fatal(err)
		}
		var doc openapi_v3.Document
		if err := proto.Unmarshal(data, &doc); err != nil || doc.Paths == nil {
			t.Errorf("%s: %v", p, err)
		}
	}
	data, err := docs().V2(true)
	if err != nil {
		t.Fatal(err)
	}
	var doc openapi_v2.Document
	if err := proto.Unmarshal(data, &doc); err != nil || len(doc.Paths.Path) < 100 {
		t.Errorf("v2: %v", err)
	}
}

func TestIndex(t *testing.T) {
	text, err := docs().Index()
	if err != nil {
		t.Fatal(err)
	}
	var index struct {
		Paths map[string]struct {
			URL string `json:"serverRelativeURL"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(text, &index); err != nil {
		t.Fatal(err)
	}
	if got, want := index.Paths["apis/apps/v1"].URL, "/openapi/v3/apis/apps/v1?hash="+docs().TagOf("apis/apps/v1"); got != want {
		t.Errorf("apps/v1 is at %q, want %q", got, want)
	}
}
