package node

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite what the examples expect")

// TestExamples makes Nodes of settings and facts, from nothing or, where there
// is a node.yaml, from that one.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no examples", err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) { example(t, name) })
	}
}

func example(t *testing.T, name string) {
	ar, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var (
		settings Settings
		facts    Facts
		old      corev1.Node
		there    bool
		now      = metav1.NewTime(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))
	)
	for _, f := range ar.Files {
		into := map[string]any{"settings.yaml": &settings, "facts.yaml": &facts, "node.yaml": &old}[f.Name]
		if into == nil {
			continue
		}
		there = there || f.Name == "node.yaml"
		if err := yaml.UnmarshalStrict(f.Data, into); err != nil {
			t.Fatal(f.Name, err)
		}
	}
	got := Initial(&settings, &facts, now)
	if there {
		got = reconciled(&old, got)
		got.Status = *Status(&old.Status, &settings, &facts, now)
		again := Status(&got.Status, &settings, &facts, metav1.NewTime(now.Add(time.Minute)))
		if changed(&got.Status, again) {
			t.Errorf("a second look changes the status:\n%s", cmp.Diff(&got.Status, again))
		}
	}
	got.Status.NodeInfo.OperatingSystem, got.Status.NodeInfo.Architecture = "", "" // the machine's
	for _, l := range []string{corev1.LabelArchStable, "beta.kubernetes.io/arch"} {
		delete(got.Labels, l)
	}
	patchesTo(t, &old, got)
	text, err := yaml.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	happened := ""
	for _, e := range events(&old, got) {
		happened += fmt.Sprintf("%s %s: %s\n", e.Type, e.Reason, e.Message)
	}
	for want, have := range map[string]string{"want.yaml": string(text), "events": happened} {
		for i := range ar.Files {
			if ar.Files[i].Name != want {
				continue
			}
			if diff := cmp.Diff(string(ar.Files[i].Data), have); diff != "" && !*update {
				t.Errorf("%s -want +got:\n%s", want, diff)
			}
			ar.Files[i].Data = []byte(have)
		}
	}
	if *update {
		if err := os.WriteFile(name, txtar.Format(ar), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// patchesTo holds that the patch from old to want makes want of old, and
// leaves alone what another has written meanwhile.
func patchesTo(t *testing.T, old, want *corev1.Node) {
	t.Helper()
	patch, err := statusPatch(old, want)
	if err != nil {
		t.Fatal(err)
	}
	stored := old.DeepCopy()
	if stored.Status.Capacity == nil {
		stored.Status.Capacity = corev1.ResourceList{}
	}
	stored.Status.Capacity["example.com/late"] = count(7)
	original, err := yaml.Marshal(stored)
	if err != nil {
		t.Fatal(err)
	}
	original, _ = yaml.YAMLToJSON(original)
	merged, err := strategicpatch.StrategicMergePatch(original, patch, corev1.Node{})
	if err != nil {
		t.Fatal(err)
	}
	var got corev1.Node
	if err := yaml.Unmarshal(merged, &got); err != nil {
		t.Fatal(err)
	}
	if q := got.Status.Capacity["example.com/late"]; q.Value() != 7 {
		t.Errorf("the patch takes away what it does not know: %s", patch)
	}
	delete(got.Status.Capacity, "example.com/late")
	if !equality.Semantic.DeepEqual(got.Status, want.Status) {
		t.Errorf("patched, -want +got:\n%s", cmp.Diff(want.Status, got.Status))
	}
}

func TestAddressesOfOneTypeSurviveThePatch(t *testing.T) {
	a, b := &corev1.Node{}, &corev1.Node{}
	a.Status.Addresses = []corev1.NodeAddress{{Type: "InternalIP", Address: "10.0.0.1"}, {Type: "InternalIP", Address: "fd00::1"}}
	b.Status.Addresses = []corev1.NodeAddress{{Type: "InternalIP", Address: "10.0.0.2"}, {Type: "InternalIP", Address: "fd00::1"}, {Type: "Hostname", Address: "n"}}
	patchesTo(t, a, b)
	if patch, err := statusPatch(b, b); err != nil || strings.Contains(string(patch), "addresses") {
		t.Errorf("nothing has changed: %s %v", patch, err)
	}
}

func TestSchedulable(t *testing.T) {
	n := &corev1.Node{}
	n.Name = "n"
	if e := schedulable(n); e.Reason != "NodeSchedulable" || e.Message != "Node n status is now: NodeSchedulable" {
		t.Error(e)
	}
	n.Spec.Unschedulable = true
	if e := schedulable(n); e.Reason != "NodeNotSchedulable" {
		t.Error(e)
	}
}
