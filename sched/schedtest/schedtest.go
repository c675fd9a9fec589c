// Package schedtest runs examples of scheduling. An example is a txtar file:
// prose, cluster.yaml with the nodes, pods and whatever else there is,
// pod.yaml with the pod whose turn it is, and verdict with what comes out of
// it. Tests with -update rewrite the last.
package schedtest

import (
	"flag"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/sched"
)

var update = flag.Bool("update", false, "rewrite the verdicts of the examples")

// Run runs the examples that the pattern finds with these plugins, in their
// order.
func Run(t *testing.T, pattern string, plugins ...sched.Erased) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples in %s: %v", pattern, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { example(t, file, plugins) })
	}
}

func example(t *testing.T, file string, plugins []sched.Erased) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]*txtar.File{}
	for i := range archive.Files {
		sections[archive.Files[i].Name] = &archive.Files[i]
	}
	for _, name := range []string{"cluster.yaml", "pod.yaml", "verdict"} {
		if sections[name] == nil {
			t.Fatalf("%s has no %s", file, name)
		}
	}
	pods := Decode(t, sections["pod.yaml"].Data)
	p, ok := pods[0].(*corev1.Pod)
	if !ok || len(pods) != 1 {
		t.Fatalf("pod.yaml holds %d objects, the first a %T", len(pods), pods[0])
	}
	got := Judge(sched.NewPod(p), Build(Decode(t, sections["cluster.yaml"].Data)), plugins)
	want := string(sections["verdict"].Data)
	if got == want {
		return
	}
	if !*update {
		t.Fatalf("verdict (-want +got):\n%s", cmp.Diff(want, got))
	}
	sections["verdict"].Data = []byte(got)
	if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Decode reads YAML documents of built-in kinds. Names are enough: namespaces
// and UIDs are added.
func Decode(t testing.TB, data []byte) (out []apis.Object) {
	t.Helper()
	for doc := range strings.SplitSeq(string(data), "\n---\n") {
		if strings.TrimSpace(doc) == "" {
			continue
		}
		decoded, kind, err := scheme.Codecs.UniversalDeserializer().Decode([]byte(doc), nil, nil)
		if err != nil {
			t.Fatalf("decode %s: %v", doc, err)
		}
		obj, ok := decoded.(apis.Object)
		if !ok {
			t.Fatalf("decode: a %T is no object", decoded)
		}
		if obj.GetNamespace() == "" && namespaced[kind.Kind] {
			obj.SetNamespace("default")
		}
		if obj.GetUID() == "" {
			obj.SetUID(types.UID(kind.Kind + "/" + obj.GetNamespace() + "/" + obj.GetName()))
		}
		out = append(out, obj)
	}
	return out
}

var namespaced = map[string]bool{
	"Pod": true, "PersistentVolumeClaim": true, "Service": true, "ReplicaSet": true, "StatefulSet": true,
	"ReplicationController": true, "PodDisruptionBudget": true, "CSIStorageCapacity": true,
}

// Build makes a cluster of objects. A pod without a node is in it by its
// claim to one, if it has that.
func Build(objects []apis.Object) *sched.Cluster {
	c := sched.NewCluster(NewObjects(objects))
	for _, obj := range objects {
		switch obj := obj.(type) {
		case *corev1.Node:
			c.PutNode(obj)
		case *corev1.Pod:
			if obj.Spec.NodeName != "" {
				c.PutPod(sched.NewPod(obj), obj.Spec.NodeName)
			} else {
				c.Nominate(sched.NewPod(obj), obj.Status.NominatedNodeName)
			}
		}
	}
	return c
}

// Objects are plain lists, by kind, that plugins can look things up in.
type Objects map[reflect.Type][]apis.Object

// NewObjects sorts objects by kind.
func NewObjects(list []apis.Object) Objects {
	o := Objects{}
	for _, obj := range list {
		o[reflect.TypeOf(obj)] = append(o[reflect.TypeOf(obj)], obj)
	}
	return o
}

// Find goes through the list.
func (o Objects) Find(kind reflect.Type, namespace, name string) (apis.Object, bool) {
	for _, obj := range o[kind] {
		if obj.GetName() == name && obj.GetNamespace() == namespace {
			return obj, true
		}
	}
	return nil, false
}

// All goes through the list.
func (o Objects) All(kind reflect.Type, namespace string) iter.Seq[apis.Object] {
	return func(yield func(apis.Object) bool) {
		for _, obj := range o[kind] {
			if (namespace == "" || obj.GetNamespace() == namespace) && !yield(obj) {
				return
			}
		}
	}
}

// Judge tells in text what becomes of a pod.
func Judge(p *sched.Pod, c *sched.Cluster, plugins []sched.Erased) string {
	for _, pl := range plugins {
		if pl.Hold != nil && pl.Hold(p.Pod) {
			return "held by " + pl.Name + "\n"
		}
	}
	c.Nominate(p, p.Status.NominatedNodeName)
	t, err := sched.Begin(p, c, plugins)
	if err != nil {
		return fmt.Sprintf("error: %v\n", err)
	}
	r := report{trial: t}
	first := func(int) int { return 0 }
	choice := t.Pick(sched.Search{Dice: first, Score: func(s []sched.Scores) { r.scores = s }})
	r.nodes(choice)
	if choice.Node != nil {
		r.writes(t.Writes(choice.Node))
		return r.String()
	}
	r.eviction(t.Evict(first))
	return r.String()
}
