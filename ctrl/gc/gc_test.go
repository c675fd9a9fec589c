package gc_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/ctrl/gc"
)

var update = flag.Bool("update", false, "rewrite the verdicts of the examples")

var kinds = map[string]*gc.Resource{
	"Pod":  {GroupVersionResource: schema.GroupVersionResource{Version: "v1", Resource: "pods"}, Kind: "Pod", Namespaced: true},
	"Set":  {GroupVersionResource: schema.GroupVersionResource{Version: "v1", Resource: "sets"}, Kind: "Set", Namespaced: true},
	"Node": {GroupVersionResource: schema.GroupVersionResource{Version: "v1", Resource: "nodes"}, Kind: "Node"},
}

// TestExamples plays scripts. A line tells of one object,
//
//	Pod shop/a owners=s! finalizers=orphan,x deleting
//
// whose UID is its name; an owner with ! it blocks. "gone a" tells that it is
// no more, "absent a s" what the server says of an owner. A line "look" writes
// what is decided about each suspect.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no examples", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			script, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(script.Files[0].Data))
			if *update {
				script.Files[0].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(script), 0o600); err != nil {
					t.Fatal(err)
				}
			} else if diff := cmp.Diff(string(script.Files[0].Data), got); diff != "" {
				t.Errorf("verdicts differ (-want +got):\n%s", diff)
			}
		})
	}
}

// play repeats the script, with what was decided indented below each look.
func play(t *testing.T, script string) string {
	g, rev, out := gc.New(), 0, &strings.Builder{}
	complete := true
	named := map[string]string{} // the kind and namespace of each name
	for line := range strings.Lines(script) {
		if strings.HasPrefix(line, "  ") {
			continue
		}
		out.WriteString(line)
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		rev++
		switch words[0] {
		case "gone":
			g.Drop(types.UID(words[1]))
		case "absent":
			g.Answer(types.UID(words[1]), ref(words[2], named), gc.Absent)
		case "incomplete":
			complete = false
		case "look":
			decide(g, complete, out)
		default:
			o := parse(t, words, named)
			o.Revision = fmt.Sprint(rev)
			g.Put(o)
		}
	}
	return out.String()
}

func parse(t *testing.T, words []string, named map[string]string) gc.Object {
	r := kinds[words[0]]
	if r == nil {
		t.Fatalf("no kind %s", words[0])
	}
	ns, name, _ := strings.Cut(words[1], "/")
	o := gc.Object{Resource: r, Namespace: ns, Name: name, UID: types.UID(name)}
	named[name] = words[0]
	for _, w := range words[2:] {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "owners":
			for s := range strings.SplitSeq(value, ",") {
				o.Owners = append(o.Owners, ref(s, named))
			}
		case "finalizers":
			o.Finalizers = strings.Split(value, ",")
		case "deleting":
			o.Deleting = true
		}
	}
	return o
}

func ref(s string, named map[string]string) metav1.OwnerReference {
	name, blocks := strings.CutSuffix(s, "!")
	kind := named[name]
	if kind == "" {
		kind = "Set"
	}
	return metav1.OwnerReference{APIVersion: "v1", Kind: kind, Name: name, UID: types.UID(name), BlockOwnerDeletion: &blocks}
}

func decide(g *gc.Graph, complete bool, out *strings.Builder) {
	for suspects := g.Suspects(); len(suspects) > 0; suspects = nil {
		slices.Sort(suspects)
		for _, uid := range suspects {
			v := g.Next(uid, complete)
			if v.Deed == gc.Nothing {
				continue
			}
			fmt.Fprintf(out, "  %s %s", uid, v.Deed)
			for _, r := range v.Refs {
				fmt.Fprintf(out, " %s", r.Name)
				if *r.BlockOwnerDeletion {
					out.WriteString("!")
				}
			}
			fmt.Fprintln(out, strings.TrimRight(fmt.Sprintf(" %s%s%s", v.Policy, v.Finalizer, strings.Trim(fmt.Sprint(v.Others), "[]")), " "))
			if v.Deed != gc.Ask && v.Deed != gc.Each {
				g.Did(&v)
			}
		}
	}
}

func TestContent(t *testing.T) {
	g := gc.New()
	o := gc.Object{Resource: kinds["Pod"], Namespace: "shop", Name: "a", UID: "a", Revision: "1", Finalizers: []string{"x"}}
	g.Put(o)
	o.Revision, o.Deleting = "2", true
	g.Put(o)
	o.Revision, o.Deleting = "1", false // late news
	g.Put(o)
	want := map[*gc.Resource]*gc.Content{kinds["Pod"]: {Count: 1, Finalizers: map[string]int{"x": 1}}}
	if diff := cmp.Diff(want, g.In("shop")); diff != "" {
		t.Error(diff)
	}
	g.Replace(kinds["Pod"], nil)
	if n := g.Len(); len(g.In("shop")) != 0 || n != 0 {
		t.Errorf("something is left: %d objects, %v", n, maps.Collect(maps.All(g.In("shop"))))
	}
}
