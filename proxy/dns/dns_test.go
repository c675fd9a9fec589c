package dns

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
)

var update = flag.Bool("update", false, "write the answers of the examples anew")

// TestExamples answers the questions of each example from its world.
func TestExamples(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, want)
			if *update {
				if err := os.WriteFile(name, got, 0o600); err != nil {
					t.Fatal(err)
				}
			} else if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// replay answers the questions of an example in every world that it has, one
// after another.
func replay(t *testing.T, text []byte) []byte {
	in := txtar.Parse(text)
	out := &txtar.Archive{Comment: in.Comment}
	z := zone()
	for _, f := range in.Files {
		if f.Name == "answers" {
			continue
		}
		out.Files = append(out.Files, f)
		switch f.Name {
		case "world":
			for _, obj := range objects(t, f.Data) {
				put(z.Index, obj)
			}
		case "gone":
			for _, obj := range objects(t, f.Data) {
				drop(z.Index, obj)
			}
		case "questions":
			var answers bytes.Buffer
			for line := range strings.Lines(string(f.Data)) {
				tell(&answers, z, strings.TrimSpace(line))
			}
			out.Files = append(out.Files, txtar.File{Name: "answers", Data: answers.Bytes()})
		}
	}
	return txtar.Format(out)
}

func zone() *Zone {
	return &Zone{Name: "cluster.local.", TTL: 30, Service: types.NamespacedName{Namespace: "kube-system", Name: "kube-dns"}, Index: NewIndex()}
}

// tell writes the answer to a question of the form "TYPE NAME".
func tell(out *bytes.Buffer, z *Zone, question string) {
	rtype, name, _ := strings.Cut(question, " ")
	a, mine := z.Answer(dns.Question{Name: dns.Fqdn(name), Qtype: dns.StringToType[rtype], Qclass: dns.ClassINET}, nil)
	if !mine {
		fmt.Fprintf(out, "%s: not mine\n", question)
		return
	}
	fmt.Fprintf(out, "%s: %s\n", question, dns.RcodeToString[a.Rcode])
	for _, section := range []struct {
		name    string
		records []dns.RR
	}{{"", a.Answer}, {"authority ", a.Authority}, {"extra ", a.Extra}} {
		for _, r := range section.records {
			if soa, ok := r.(*dns.SOA); ok {
				soa.Serial = 0 // counts what happened, which no example is about
			}
			fmt.Fprintf(out, "  %s%s\n", section.name, strings.ReplaceAll(r.String(), "\t", " "))
		}
	}
	if a.Next != "" {
		fmt.Fprintf(out, "  next %s\n", a.Next)
	}
}

func objects(t *testing.T, data []byte) (all []runtime.Object) {
	for doc := range strings.SplitSeq(string(data), "---\n") {
		obj, _, err := scheme.Codecs.UniversalDeserializer().Decode([]byte(doc), nil, nil)
		if err != nil {
			t.Fatalf("%v in:\n%s", err, doc)
		}
		all = append(all, obj)
	}
	return all
}

func put(x *Index, obj runtime.Object) {
	switch o := obj.(type) {
	case *corev1.Namespace:
		x.SetNamespace(o.Name)
	case *corev1.Service:
		x.SetService(o)
	case *discoveryv1.EndpointSlice:
		x.SetSlice(o)
	}
}

func drop(x *Index, obj runtime.Object) {
	switch o := obj.(type) {
	case *corev1.Namespace:
		x.DropNamespace(o.Name)
	case *corev1.Service:
		x.DropService(key(o))
	case *discoveryv1.EndpointSlice:
		x.DropSlice(key(o))
	}
}

func key(o interface {
	GetNamespace() string
	GetName() string
},
) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}
