package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/knarr-dev/knarr/conformance/images/store"
)

// An order is what to make, how many at once, and where to say so.
type order struct {
	recipes []recipe
	match   *regexp.Regexp
	jobs    int
	out     io.Writer
}

// A dish is what became of a recipe.
type dish struct {
	name    string
	changed bool
	err     error
}

// cook makes those of the ordered images that are not what they would become,
// and says what each weighs. One that cannot be made is named, and the others
// are made all the same.
func cook(ctx context.Context, k *kitchen, s *store.Store, o order) error {
	var wanted []recipe
	for _, r := range o.recipes {
		if o.match.MatchString(r.name) {
			wanted = append(wanted, r)
		}
	}
	if len(wanted) == 0 {
		return fmt.Errorf("no image's name matches %s", o.match)
	}
	dishes := make(chan dish)
	tickets := make(chan struct{}, max(1, o.jobs))
	var cooks sync.WaitGroup
	for _, r := range wanted {
		cooks.Go(func() {
			tickets <- struct{}{}
			defer func() { <-tickets }()
			changed, err := one(ctx, k, s, r)
			dishes <- dish{r.name, changed, err}
		})
	}
	go func() { cooks.Wait(); close(dishes) }()
	var failed []string
	for d := range dishes {
		switch {
		case d.err != nil:
			failed = append(failed, d.name)
			fmt.Fprintf(o.out, "%-60s FAILED: %v\n", d.name, d.err)
		case d.changed:
			fmt.Fprintf(o.out, "%-60s %10s  made\n", d.name, weight(s.Size(d.name)))
		default:
			fmt.Fprintf(o.out, "%-60s %10s  unchanged\n", d.name, weight(s.Size(d.name)))
		}
	}
	if len(failed) > 0 {
		slices.Sort(failed)
		return fmt.Errorf("%d of %d images could not be made: %s", len(failed), len(wanted), strings.Join(failed, ", "))
	}
	return nil
}

// one makes an image, unless it is in the store as it would become.
func one(ctx context.Context, k *kitchen, s *store.Store, r recipe) (changed bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	key, err := k.key(ctx, r)
	if err != nil {
		return false, err
	}
	if s.Key(r.name) == key {
		return false, nil
	}
	img, err := k.image(ctx, r)
	if err != nil {
		return false, err
	}
	return true, s.Put(r.name, key, img)
}

// named tells whether there is a recipe of that name.
func named(name string) bool {
	return slices.ContainsFunc(recipes, func(r recipe) bool { return r.name == name })
}

// unmade are the images that the suite names and nobody makes here, none
// where the suite is not built.
func unmade(ctx context.Context, suite string) ([]string, error) {
	if _, err := os.Stat(suite); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	names, err := suiteImages(ctx, suite)
	return slices.DeleteFunc(names, named), err
}

// suiteImages are the images that the suite names.
func suiteImages(ctx context.Context, suite string) (names []string, err error) {
	out, err := output(exec.CommandContext(ctx, suite, "--list-images"))
	if err != nil {
		return nil, fmt.Errorf("list the images of %s: %w", suite, err)
	}
	for name := range strings.FieldsSeq(out) {
		if strings.Contains(name, "/") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// blob is a layer as it is stored.
func blob(l v1.Layer) (v1.Hash, []byte, error) {
	hash, err := l.Digest()
	if err != nil {
		return hash, nil, err
	}
	r, err := l.Compressed()
	if err != nil {
		return hash, nil, err
	}
	data, err := io.ReadAll(r)
	return hash, data, errors.Join(err, r.Close())
}

func weight(bytes int64) string {
	return fmt.Sprintf("%.1f MB", float64(bytes)/1e6)
}
