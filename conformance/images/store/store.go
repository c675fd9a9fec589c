// Package store keeps images in a directory of the OCI layout, each under its
// full name, as registry.k8s.io/pause:3.10.2, and with the key of what it was
// made from.
package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// The annotations of an image in the layout's index.
const (
	named = "org.opencontainers.image.ref.name"
	keyed = "dev.knarr.key"
)

// ErrUnknown is what Find returns for what is not in the store.
var ErrUnknown = errors.New("no such image")

// A Store is the images below a directory. Puts are safe at the same time;
// one process writes, while others may read what it wrote.
type Store struct {
	path layout.Path
	root string

	mu     sync.Mutex
	read   time.Time // when the index that catalog was made of was written
	images map[string]image
}

type image struct {
	desc  v1.Descriptor
	blobs map[v1.Hash]bool
	size  int64
}

// Open opens the store in dir, making one where there is none.
func Open(dir string) (*Store, error) {
	path, err := layout.FromPath(dir)
	if errors.Is(err, fs.ErrNotExist) {
		path, err = layout.Write(dir, empty.Index)
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	return &Store{path: path, root: dir}, nil
}

// Put stores the image in place of what had its name.
func (s *Store) Put(name, key string, img v1.Image) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.path.ReplaceImage(img, match.Annotation(named, name), layout.WithAnnotations(map[string]string{named: name, keyed: key}))
	if err != nil {
		return fmt.Errorf("store %s: %w", name, err)
	}
	s.read = time.Time{}
	return nil
}

// Key is what the image of that name was made from, empty where it is not
// there or not whole.
func (s *Store) Key(name string) string {
	images, err := s.catalog()
	if err != nil {
		return ""
	}
	img, there := images[name]
	if !there {
		return ""
	}
	for hash := range img.blobs {
		if _, err := os.Stat(s.Blob(hash)); err != nil {
			return ""
		}
	}
	return img.desc.Annotations[keyed]
}

// Size is how many bytes of the image a node has to pull, layers that it
// shares with other images counted in each.
func (s *Store) Size(name string) int64 {
	images, err := s.catalog()
	if err != nil {
		return 0
	}
	return images[name].size
}

// Names are the names of all images.
func (s *Store) Names() ([]string, error) {
	images, err := s.catalog()
	if err != nil {
		return nil, err
	}
	var names []string
	for name := range images {
		names = append(names, name)
	}
	return names, nil
}

// Find is the manifest that a tag or a digest of a repository means.
func (s *Store) Find(repository, reference string) (v1.Descriptor, error) {
	images, err := s.catalog()
	if err != nil {
		return v1.Descriptor{}, err
	}
	if img, there := images[repository+":"+reference]; there {
		return img.desc, nil
	}
	for name, img := range images {
		if Repository(name) == repository && img.desc.Digest.String() == reference {
			return img.desc, nil
		}
	}
	return v1.Descriptor{}, ErrUnknown
}

// Holds tells whether a repository has an image with that blob.
func (s *Store) Holds(repository string, hash v1.Hash) bool {
	images, err := s.catalog()
	if err != nil {
		return false
	}
	for name, img := range images {
		if Repository(name) == repository && img.blobs[hash] {
			return true
		}
	}
	return false
}

// Has tells whether there is a repository of that name.
func (s *Store) Has(repository string) bool {
	images, err := s.catalog()
	if err != nil {
		return false
	}
	for name := range images {
		if Repository(name) == repository {
			return true
		}
	}
	return false
}

// Blob is the file of a blob, which need not be there.
func (s *Store) Blob(hash v1.Hash) string {
	return filepath.Join(s.root, "blobs", hash.Algorithm, hash.Hex)
}

// Sweep removes images that are not to be kept, and blobs that no image has.
func (s *Store) Sweep(keep func(name string) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.path.RemoveDescriptors(func(d v1.Descriptor) bool { return !keep(d.Annotations[named]) })
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	s.read = time.Time{}
	images, err := s.load()
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	used := map[string]bool{}
	for _, img := range images {
		for hash := range img.blobs {
			used[s.Blob(hash)] = true
		}
	}
	blobs, err := filepath.Glob(filepath.Join(s.root, "blobs", "*", "*"))
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	for _, blob := range blobs {
		if used[blob] {
			continue
		}
		if err := os.Remove(blob); err != nil {
			return fmt.Errorf("sweep: %w", err)
		}
	}
	return nil
}

// Repository is a name without its tag.
func Repository(name string) string {
	if i := strings.LastIndex(name, ":"); i > strings.LastIndex(name, "/") {
		return name[:i]
	}
	return name
}

// catalog reads the index, again where it was written since.
func (s *Store) catalog() (map[string]image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	info, err := os.Stat(filepath.Join(s.root, "index.json"))
	if err != nil {
		return nil, err
	}
	if info.ModTime().Equal(s.read) {
		return s.images, nil
	}
	images, err := s.load()
	if err != nil && s.images != nil {
		return s.images, nil // half written: what was before it counts until it is whole
	}
	if err != nil {
		return nil, err
	}
	s.images, s.read = images, info.ModTime()
	return images, nil
}

func (s *Store) load() (map[string]image, error) {
	index, err := s.path.ImageIndex()
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	images := map[string]image{}
	for _, desc := range manifest.Manifests {
		img, err := s.image(desc)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", desc.Annotations[named], err)
		}
		images[desc.Annotations[named]] = img
	}
	return images, nil
}

func (s *Store) image(desc v1.Descriptor) (image, error) {
	img := image{desc: desc, blobs: map[v1.Hash]bool{desc.Digest: true}, size: desc.Size}
	if desc.MediaType != types.OCIManifestSchema1 {
		return img, fmt.Errorf("is of type %s", desc.MediaType)
	}
	f, err := os.Open(s.Blob(desc.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return img, nil // Key finds that it is gone, and has it made again.
	}
	if err != nil {
		return img, err
	}
	defer func() { _ = f.Close() }() // only read
	m, err := v1.ParseManifest(f)
	if err != nil {
		return img, err
	}
	for _, blob := range append(m.Layers, m.Config) {
		img.blobs[blob.Digest] = true
		img.size += blob.Size
	}
	return img, nil
}
