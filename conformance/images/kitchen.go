package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/knarr-dev/knarr/conformance/images/debian"
	"github.com/knarr-dev/knarr/conformance/images/layer"
)

// searchPath is where images look for programs. Debian puts ip and others
// into sbin, where they go before busybox's.
const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// A kitchen is where layers are made, each once however many images have it.
type kitchen struct {
	source string // the folder of the modules e2e and images
	cache  string // absolute, for what is fetched and built
	debian *debian.Source
	parts  map[string]part

	mu     sync.Mutex
	layers map[string]func() (v1.Layer, error)
}

// A maker adds to a layer what a part cannot say as data.
type maker func(ctx context.Context, k *kitchen, t *layer.Tree) error

// image puts an image together.
func (k *kitchen) image(ctx context.Context, r recipe) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, name := range r.parts {
		l, err := k.layer(ctx, name)
		if err != nil {
			return nil, err
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			return nil, err
		}
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", runtime.GOARCH, r.config
	file.Config.Env = []string{searchPath}
	// Images of one content are told apart by it, as runtimes know an image by what is in it.
	file.Config.Labels = map[string]string{"org.opencontainers.image.ref.name": r.name}
	return mutate.ConfigFile(img, file)
}

// layer makes a part's layer, or waits for who is at it.
func (k *kitchen) layer(ctx context.Context, name string) (v1.Layer, error) {
	k.mu.Lock()
	if k.layers == nil {
		k.layers = map[string]func() (v1.Layer, error){}
	}
	once, there := k.layers[name]
	if !there {
		once = sync.OnceValues(func() (v1.Layer, error) {
			t, err := k.tree(ctx, k.parts[name])
			if err != nil {
				return nil, fmt.Errorf("layer %s: %w", name, err)
			}
			return t.Layer()
		})
		k.layers[name] = once
	}
	k.mu.Unlock()
	return once()
}

func (k *kitchen) tree(ctx context.Context, p part) (*layer.Tree, error) {
	t := &layer.Tree{}
	if len(p.Packages) > 0 {
		if err := k.debian.Unpack(ctx, t, p.Packages...); err != nil {
			return nil, err
		}
	}
	if p.Make != nil {
		if err := p.Make(ctx, k, t); err != nil {
			return nil, err
		}
	}
	for _, prog := range p.Programs {
		data, err := k.program(ctx, prog)
		if err != nil {
			return nil, err
		}
		t.File(prog.To, prog.Mode, data)
	}
	for from, to := range p.Copies {
		dir, err := k.module(ctx, upstream)
		if err != nil {
			return nil, err
		}
		data, err := os.ReadFile(filepath.Join(dir, from))
		if err != nil {
			return nil, err
		}
		t.File(to, 0o644, data)
	}
	for name, mode := range p.Dirs {
		t.Dir(name, mode)
	}
	for name, text := range p.Files {
		t.File(name, 0o644, []byte(text))
	}
	for name, target := range p.Links {
		t.Link(name, target)
	}
	return t, nil
}

// program builds a Go program, static and the same wherever it is built.
func (k *kitchen) program(ctx context.Context, p program) ([]byte, error) {
	out := filepath.Join(k.cache, "programs", filepath.Base(p.Package)+"-"+filepath.Base(p.To))
	link := "-s -w -buildid="
	if p.Version != "" {
		link += " -X main.Version=" + p.Version
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags="+link, "-o", out, p.Package)
	cmd.Dir = filepath.Join(k.source, p.Module)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=-mod=readonly", "GOWORK=off")
	if _, err := output(cmd); err != nil {
		return nil, fmt.Errorf("build %s: %w", p.Package, err)
	}
	return os.ReadFile(out)
}

// module is where the sources of a module are that e2e requires.
func (k *kitchen) module(ctx context.Context, path string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", path)
	cmd.Dir = filepath.Join(k.source, e2e)
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	dir, err := output(cmd)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", path, err)
	}
	if dir = strings.TrimSpace(dir); dir != "" {
		return dir, nil
	}
	// It is in go.mod, but not fetched yet.
	fetch := exec.CommandContext(ctx, "go", "mod", "download", path)
	fetch.Dir, fetch.Env = cmd.Dir, cmd.Env
	if _, err := output(fetch); err != nil {
		return "", fmt.Errorf("fetch %s: %w", path, err)
	}
	again := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", path)
	again.Dir, again.Env = cmd.Dir, cmd.Env
	dir, err = output(again)
	return strings.TrimSpace(dir), err
}

// key says what an image would be made from: this program, the recipe, the
// modules' requirements and the packages' checksums.
func (k *kitchen) key(ctx context.Context, r recipe) (string, error) {
	sum := sha256.New()
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	files := []string{self}
	enc := json.NewEncoder(sum)
	for _, name := range r.parts {
		p := k.parts[name]
		if err := enc.Encode([]any{name, p}); err != nil {
			return "", err
		}
		if len(p.Packages) > 0 {
			closure, err := k.debian.Closure(ctx, p.Packages...)
			if err != nil {
				return "", err
			}
			if err := enc.Encode(closure); err != nil {
				return "", err
			}
		}
		for _, prog := range p.Programs {
			files = append(files, filepath.Join(k.source, prog.Module, "go.mod"), filepath.Join(k.source, prog.Module, "go.sum"))
		}
	}
	if err := enc.Encode([]any{r.name, r.config, runtime.GOARCH}); err != nil {
		return "", err
	}
	slices.Sort(files)
	for _, file := range slices.Compact(files) {
		if err := hash(sum, file); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func hash(to io.Writer, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	_, err = io.Copy(to, f)
	return err
}

// output runs a command, and on failure says what it said last.
func output(cmd *exec.Cmd) (string, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return "", err
	}
	if err != nil {
		said := strings.TrimSpace(errs.String())
		if said == "" {
			said = strings.TrimSpace(out.String())
		}
		lines := strings.Split(said, "\n")
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, strings.Join(lines[max(0, len(lines)-8):], "\n"))
	}
	return out.String(), nil
}
