package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/knarr-dev/knarr/conformance/images/layer"
	"github.com/knarr-dev/knarr/conformance/images/store"
)

func file(name, text string) part { return part{Files: map[string]string{name: text}} }

func order1(t *testing.T, k *kitchen, s *store.Store, only string, rs ...recipe) (string, error) {
	t.Helper()
	var out strings.Builder
	err := cook(t.Context(), k, s, order{recipes: rs, match: regexp.MustCompile(only), jobs: 2, out: &out})
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	slices.Sort(lines)
	for i, line := range lines {
		lines[i] = strings.Join(strings.Fields(line), " ")
	}
	return strings.Join(lines, "\n"), err
}

// What changed is made, what did not is not, and what cannot be made is named
// while the rest is made all the same.
func TestCook(t *testing.T) {
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	made := 0
	count := func(_ context.Context, _ *kitchen, tree *layer.Tree) error {
		made++
		tree.File("counted", 0o644, nil)
		return nil
	}
	broken := func(context.Context, *kitchen, *layer.Tree) error { return errors.New("no flour") }
	parts := map[string]part{"base": {Make: count}, "a": file("etc/a", "1"), "b": file("etc/b", "1"), "bad": {Make: broken}}
	rs := []recipe{{name: "r/a:1", parts: []string{"base", "a"}}, {name: "r/bad:1", parts: []string{"base", "bad"}}, {name: "r/b:1", parts: []string{"base", "b"}}}
	cache := t.TempDir()
	fresh := func() *kitchen { return &kitchen{source: "..", cache: cache, parts: parts} }

	out, err := order1(t, fresh(), s, "", rs...)
	if err == nil || err.Error() != "1 of 3 images could not be made: r/bad:1" {
		t.Errorf("the error is %v", err)
	}
	if want := "r/a:1 0.0 MB made\nr/b:1 0.0 MB made\nr/bad:1 FAILED: layer bad: no flour"; out != want {
		t.Errorf("it says\n%s\nwant\n%s", out, want)
	}
	if made != 1 {
		t.Errorf("the layer that all have was made %d times", made)
	}
	parts["b"] = file("etc/b", "2")
	out, err = order1(t, fresh(), s, "/[ab]:", rs...)
	if want := "r/a:1 0.0 MB unchanged\nr/b:1 0.0 MB made"; out != want || err != nil {
		t.Errorf("it says\n%s, %v\nwant\n%s", out, err, want)
	}
	if _, err := order1(t, fresh(), s, "nope", rs...); err == nil || !strings.Contains(err.Error(), "no image's name matches nope") {
		t.Errorf("of nothing: %v", err)
	}
}

// Images of one content have names of their own, and so digests.
func TestImageApart(t *testing.T) {
	k := &kitchen{parts: map[string]part{"a": file("a", "a")}}
	digest := func(name string) string {
		img, err := k.image(t.Context(), recipe{name: name, parts: []string{"a"}})
		if err != nil {
			t.Fatal(err)
		}
		hash, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return hash.String()
	}
	if digest("r/a:1") == digest("r/a:2") {
		t.Error("a runtime would take one for the other")
	}
	if a, again := digest("r/a:1"), digest("r/a:1"); a != again {
		t.Error("it is not the same each time")
	}
}

func TestRecipes(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range recipes {
		if seen[r.name] {
			t.Errorf("%s twice", r.name)
		}
		seen[r.name] = true
		for _, p := range r.parts {
			if _, there := parts[p]; !there {
				t.Errorf("%s has the part %s, which there is not", r.name, p)
			}
		}
	}
	if !slices.ContainsFunc(recipes, func(r recipe) bool { return store.Repository(r.name) == private }) {
		t.Errorf("no image is of %s", private)
	}
}

// What is made is what the suite names, where it is built.
func TestRecipesNamed(t *testing.T) {
	suite := "../e2e/.cache/e2e.test"
	if _, err := os.Stat(suite); err != nil {
		t.Skipf("the suite is not built: %v", err)
	}
	file, err := filepath.Abs(suite)
	if err != nil {
		t.Fatal(err)
	}
	named, err := suiteImages(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range recipes {
		if !slices.Contains(named, r.name) {
			t.Errorf("the suite does not name %s", r.name)
		}
	}
}

func TestCommands(t *testing.T) {
	for _, c := range []struct{ args, err string }{
		{"", "usage: images"},
		{"cook", `no command "cook"`},
		{"build -only (", "missing closing"},
		{"list extra", `what is "extra" for?`},
		{"hosts", "hosts needs -certs"},
		{"hosts -certs x", "run images build first"},
		{"serve -listen nowhere", "missing port"},
	} {
		t.Run(c.args, func(t *testing.T) {
			t.Chdir(t.TempDir())
			var out strings.Builder
			if err := run(t.Context(), strings.Fields(c.args), &out); err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}
