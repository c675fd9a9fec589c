package image

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// A note says by whose credentials an image was pulled: without one of them
// another pod may not use it, though it is there. An image without a note was
// not pulled by this kubelet and is for all.
type note struct {
	Open    bool     // it was pulled without a pod's credentials
	Secrets []string // by where they are
	Hashes  []string // by what they are
}

// file is where the note on something is, by a name that it can have there.
func (k *Keeper) file(kind, of string) string {
	sum := sha256.Sum256([]byte(of))
	return filepath.Join(k.Dir, kind+"-"+hex.EncodeToString(sum[:]))
}

// intend notes that an image is being pulled, so that it does not pass for one
// that was always there if this process ends before the outcome is noted. Each
// call is followed by one of settled.
func (k *Keeper) intend(name string) error {
	if k.Dir == "" {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pulling == nil {
		k.pulling = map[string]int{}
	}
	k.pulling[name]++
	if err := os.MkdirAll(k.Dir, 0o700); err != nil {
		return fmt.Errorf("note pull: %w", err)
	}
	if err := os.WriteFile(k.file("pulling", name), nil, 0o600); err != nil {
		return fmt.Errorf("note pull: %w", err)
	}
	return nil
}

// settled notes that a pull has ended and its outcome is noted. Where it is not
// known, the note that the image is being pulled stays.
func (k *Keeper) settled(name string, known bool) error {
	if k.Dir == "" {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pulling[name]--; k.pulling[name] > 0 || !known {
		return nil
	}
	delete(k.pulling, name)
	if err := os.Remove(k.file("pulling", name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("note pull: %w", err)
	}
	return nil
}

// pulled notes that an image was pulled with a credential, or with none.
func (k *Keeper) pulled(id string, with *auth) error {
	if k.Dir == "" {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	n, err := k.read(id)
	if err != nil {
		return err
	}
	if n == nil {
		n = &note{}
	}
	if with == nil || with.secret == "" {
		n.Open = true
	} else {
		n.Secrets = slices.Compact(slices.Sorted(slices.Values(append(n.Secrets, with.secret))))
		n.Hashes = slices.Compact(slices.Sorted(slices.Values(append(n.Hashes, with.hash()))))
	}
	b, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("note pull: %w", err)
	}
	tmp := k.file("new", id)
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("note pull: %w", err)
	}
	if err := os.Rename(tmp, k.file("image", id)); err != nil {
		return fmt.Errorf("note pull: %w", err)
	}
	return nil
}

// read is the note on an image; nil where there is none.
func (k *Keeper) read(id string) (*note, error) {
	b, err := os.ReadFile(k.file("image", id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read note on image: %w", err)
	}
	n := &note{}
	if err := json.Unmarshal(b, n); err != nil {
		return &note{}, nil //nolint:nilerr // what cannot be read lets nobody in
	}
	return n, nil
}

// mayUse tells whether a pod with these credentials may use an image that is
// there.
func (k *Keeper) mayUse(name, id string, auths []auth) bool {
	if k.Dir == "" {
		return true
	}
	n, err := k.read(id)
	if err != nil {
		return false
	}
	if n == nil {
		_, err := os.Stat(k.file("pulling", name))
		return errors.Is(err, fs.ErrNotExist)
	}
	return n.Open || slices.ContainsFunc(auths, func(a auth) bool {
		return slices.Contains(n.Secrets, a.secret) || slices.Contains(n.Hashes, a.hash())
	})
}

// forget drops the note on an image that is no more.
func (k *Keeper) forget(id string) {
	if k.Dir != "" {
		_ = os.Remove(k.file("image", id)) // none is as good
	}
}
