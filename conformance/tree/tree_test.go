package tree

import (
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

// TestTree holds the whole module to the rules.
func TestTree(t *testing.T) {
	faults, err := check(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		t.Error(f)
	}
}

// TestTop holds the top level to what belongs there.
func TestTop(t *testing.T) {
	want := []string{
		".ci", ".git", ".gitignore", ".golangci.yml", "ARCHITECTURE.md", "LICENSE", "Makefile", "README.md",
		"apis", "cmd", "conformance", "ctrl", "go.mod", "go.sum", "kubelet", "proxy", "registry", "sched",
	}
	entries, err := os.ReadDir("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(want, e.Name()) && e.Name() != "bin" {
			t.Errorf("%s stands at the top", e.Name())
		}
	}
}

// TestRulesBite plants one fault at a time and holds that it is found, and
// nothing else. Each file of testdata is a tree; its comment says what must
// be found, a line each.
func TestRulesBite(t *testing.T) {
	planted, err := fs.Glob(os.DirFS("testdata"), "*.txtar")
	if err != nil || len(planted) == 0 {
		t.Fatalf("no planted faults: %v", err)
	}
	for _, name := range planted {
		t.Run(name, func(t *testing.T) {
			archive, err := txtar.ParseFile("testdata/" + name)
			if err != nil {
				t.Fatal(err)
			}
			root := fstest.MapFS{}
			for _, f := range archive.Files {
				root[f.Name] = &fstest.MapFile{Data: expand(f.Data)}
			}
			got, err := check(root)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for line := range strings.Lines(strings.TrimSpace(string(archive.Comment))) {
				want = append(want, strings.TrimSpace(line))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// expand repeats a line "N times: text", so that large things stay small here.
func expand(src []byte) []byte {
	var out strings.Builder
	for line := range strings.Lines(string(src)) {
		text, many := strings.CutPrefix(strings.TrimSpace(line), "100 times: ")
		if !many {
			out.WriteString(line)
			continue
		}
		for range 100 {
			out.WriteString(text + "\n")
		}
	}
	return []byte(out.String())
}
