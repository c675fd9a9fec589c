package assembly_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/aggregate"
	"github.com/knarr-dev/knarr/registry/crd"
	"github.com/knarr-dev/knarr/registry/registrytest"
)

// TestStored holds where and as what objects are stored against the table of
// Kubernetes v1.36, and reads what is stored with its own types.
func TestStored(t *testing.T) {
	server := registrytest.Run(t)
	var table strings.Builder
	for _, k := range server.Rest.Kinds() {
		if k.Objects == nil || k.Plural == "componentstatuses" {
			continue // nothing of a review is stored, and a status is made up when it is asked for
		}
		obj := k.Definition.New()
		obj.SetName("NAME")
		namespace := ""
		if !bool(k.Scope) {
			namespace = "NAMESPACE"
		}
		obj.SetNamespace(namespace)
		value, err := k.Main().Wire.Encode(obj)
		if err != nil {
			t.Fatal(err)
		}
		encoding := "JSON"
		if bytes.HasPrefix(value, []byte("k8s\x00")) {
			encoding = "protobuf"
		}
		if k.GroupResource() == crd.Kind || k.GroupResource() == aggregate.Kind {
			fmt.Fprintf(&table, "%s %s\n", registry.Path(k.Definition, namespace, "NAME"), bytes.TrimSpace(value))
			continue
		}
		read, gvk, err := scheme.Codecs.UniversalDeserializer().Decode(value, nil, nil)
		if err != nil {
			t.Errorf("%s: %v", k.Plural, err)
			continue
		}
		if got := read.(metav1.Object).GetName(); got != "NAME" {
			t.Errorf("%s: read as %q", k.Plural, got)
		}
		fmt.Fprintf(&table, "%s %s %s\n", registry.Path(k.Definition, namespace, "NAME"), gvk.GroupVersion().WithKind(gvk.Kind), encoding)
	}
	const golden = "testdata/stored.txt"
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), table.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
