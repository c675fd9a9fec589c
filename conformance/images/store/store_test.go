package store

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func sample(t *testing.T) v1.Image {
	t.Helper()
	img, err := random.Image(256, 1)
	if err != nil {
		t.Fatal(err)
	}
	return mutate.MediaType(img, types.OCIManifestSchema1)
}

func put(t *testing.T, s *Store, name, key string, img v1.Image) {
	t.Helper()
	if err := s.Put(name, key, img); err != nil {
		t.Fatal(err)
	}
}

func TestStore(t *testing.T) {
	dir := t.TempDir() + "/images"
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	first, second := sample(t), sample(t)
	put(t, s, "r/a:1", "one", first)
	put(t, s, "r/b:1", "two", second)
	other, err := Open(dir) // as a server beside the builder does
	if err != nil {
		t.Fatal(err)
	}
	if other.Key("r/a:1") != "one" || other.Key("r/c:1") != "" || other.Size("r/a:1") < 256 {
		t.Errorf("keys %q and %q, size %d", other.Key("r/a:1"), other.Key("r/c:1"), other.Size("r/a:1"))
	}
	digest, err := first.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]bool{"r/a 1": true, "r/a 2": false, "r/b " + digest.String(): false, "r/a " + digest.String(): true} {
		repository, reference, _ := strings.Cut(ref, " ")
		if _, err := other.Find(repository, reference); (err == nil) != want || err != nil && !errors.Is(err, ErrUnknown) {
			t.Errorf("find %s: %v", ref, err)
		}
	}
	if !other.Holds("r/a", digest) || other.Holds("r/b", digest) || !other.Has("r/a") || other.Has("r") {
		t.Error("it does not know whose a blob is")
	}
	put(t, s, "r/a:1", "three", second)
	if got := other.Key("r/a:1"); got != "three" {
		t.Errorf("after another was put it has %q", got)
	}
	if err := s.Sweep(func(name string) bool { return name == "r/b:1" }); err != nil {
		t.Fatal(err)
	}
	names, err := other.Names()
	if err != nil || !slices.Equal(names, []string{"r/b:1"}) {
		t.Errorf("after a sweep: %v, %v", names, err)
	}
	if _, err := os.Stat(s.Blob(digest)); err == nil {
		t.Error("what no image has is kept")
	}
	if s.Key("r/b:1") != "two" {
		t.Error("what is kept was swept")
	}
}

// An image of which a part is lost has to be made again.
func TestStoreLost(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	img := sample(t)
	put(t, s, "r/a:1", "one", img)
	manifest, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.Blob(manifest.Layers[0].Digest)); err != nil {
		t.Fatal(err)
	}
	if s.Key("r/a:1") != "" {
		t.Error("it counts as whole")
	}
	put(t, s, "r/a:1", "one", img)
	if s.Key("r/a:1") != "one" {
		t.Error("it was not made whole")
	}
}

func TestRepository(t *testing.T) {
	for name, want := range map[string]string{"a/b:1": "a/b", "a:5000/b": "a:5000/b", "a:5000/b:1": "a:5000/b"} {
		if got := Repository(name); got != want {
			t.Errorf("%s is of %s", name, got)
		}
	}
}
