package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The names by which files are changed all at once: a link to the directory
// that holds them now, and the same link before it takes that name.
const (
	dataLink = "..data"
	nextLink = "..data_tmp"
)

// write makes files the content of dir, so that whoever reads there sees all
// of the old ones or all of the new: they are in a directory that is named by
// a link, and what is seen are links through that. finish is run on the
// directory before it is seen. Nothing is done where nothing has changed.
func write(dir string, files map[string]file, finish func(dir string) error) error {
	old, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write volume: %w", err)
	}
	if old != "" && same(filepath.Join(dir, old), files) {
		return expose(dir, files)
	}
	next, err := os.MkdirTemp(dir, time.Now().UTC().Format("..2006_01_02_15_04_05.")) // random at the end
	if err != nil {
		return fmt.Errorf("write volume: %w", err)
	}
	if err := fill(next, files, finish); err != nil {
		return errors.Join(err, os.RemoveAll(next))
	}
	tmp := filepath.Join(dir, nextLink)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write volume: %w", err)
	}
	if err := os.Symlink(filepath.Base(next), tmp); err != nil {
		return fmt.Errorf("write volume: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, dataLink)); err != nil {
		return fmt.Errorf("write volume: %w", err)
	}
	if err := expose(dir, files); err != nil {
		return err
	}
	return removeOld(dir, filepath.Base(next))
}

// fill writes files below a directory.
func fill(dir string, files map[string]file, finish func(string) error) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("write volume: %w", err)
	}
	for name, f := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("write volume: %w", err)
		}
		if err := os.WriteFile(path, f.data, fs.FileMode(f.mode).Perm()); err != nil {
			return fmt.Errorf("write volume: %w", err)
		}
		if err := os.Chmod(path, permissions(f.mode)); err != nil { // whatever the umask
			return fmt.Errorf("write volume: %w", err)
		}
		if f.uid != nil {
			if err := os.Chown(path, int(*f.uid), -1); err != nil {
				return fmt.Errorf("write volume: %w", err)
			}
		}
	}
	return finish(dir)
}

// permissions reads a mode as chmod does.
func permissions(mode int32) fs.FileMode {
	m := fs.FileMode(mode) & fs.ModePerm
	for bit, special := range map[int32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&bit != 0 {
			m |= special
		}
	}
	return m
}

// same tells whether a directory has the files, and no others. Modes do not
// change while a volume lives.
func same(dir string, files map[string]file) bool {
	left := len(files)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		had, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, ok := files[name]
		if !ok || !bytes.Equal(had, f.data) {
			return fs.ErrInvalid
		}
		left--
		return nil
	})
	return err == nil && left == 0
}

// expose makes the links by which the files are seen, and removes those to
// what is no more.
func expose(dir string, files map[string]file) error {
	want := map[string]bool{}
	for name := range files {
		first, _, _ := strings.Cut(name, string(filepath.Separator))
		want[first] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("write volume: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") || want[e.Name()] {
			delete(want, e.Name())
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("write volume: %w", err)
		}
	}
	for name := range want {
		if err := os.Symlink(filepath.Join(dataLink, name), filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("write volume: %w", err)
		}
	}
	return nil
}

// removeOld removes the directories of earlier content, also what a process
// that was killed has left.
func removeOld(dir, now string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("write volume: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") && e.IsDir() && e.Name() != now {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("write volume: %w", err)
			}
		}
	}
	return nil
}
