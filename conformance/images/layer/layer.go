// Package layer makes image layers out of files: a Tree gathers what is to be
// in one, and Tree.Layer packs it.
//
// The same tree always packs to the same bytes, so that an image that is
// built twice has one digest. Where files come from, callers say.
package layer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// merged are the directories that are links into /usr, as in every
// distribution of today. Packages that still name them land in /usr.
var merged = map[string]string{"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}

// A Tree is the files of a layer by their path, which has no leading slash.
type Tree struct {
	entries map[string]entry
}

type entry struct {
	header tar.Header
	data   []byte
}

// Dir adds a directory, and those above it.
func (t *Tree) Dir(name string, mode int64) {
	t.put(tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}, nil)
}

// File adds a file of root's.
func (t *Tree) File(name string, mode int64, data []byte) {
	t.put(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))}, data)
}

// Link adds a symbolic link.
func (t *Tree) Link(name, target string) {
	t.put(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Mode: 0o777, Linkname: target}, nil)
}

// Chown gives what is at name to another owner.
func (t *Tree) Chown(name string, uid, gid int) {
	name = clean(name)
	e, there := t.entries[name]
	if !there {
		return
	}
	e.header.Uid, e.header.Gid = uid, gid
	t.entries[name] = e
}

// Has tells whether there is anything at name.
func (t *Tree) Has(name string) bool {
	_, there := t.entries[clean(name)]
	return there
}

// Merge adds /bin and its like as links into /usr.
func (t *Tree) Merge() {
	for from, to := range merged {
		t.Dir(to, 0o755)
		t.entries[from] = entry{header: tar.Header{Typeflag: tar.TypeSymlink, Name: from, Mode: 0o777, Linkname: to}}
	}
}

// Unpack adds the files of a tar archive that keep says to keep. Devices and
// the like are left out: a runtime makes its own.
func (t *Tree) Unpack(r io.Reader, keep func(name string) bool) error {
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read archive: %w", err)
		}
		name := clean(h.Name)
		if _, is := merged[name]; is || name == "" || !keep(name) {
			continue
		}
		switch h.Typeflag {
		case tar.TypeDir, tar.TypeSymlink:
			t.put(*h, nil)
		case tar.TypeLink:
			// A copy, for the other end of the link may be in another layer.
			target, there := t.entries[clean(h.Linkname)]
			if !there {
				return fmt.Errorf("read archive: %s links to %s, which is not there", name, h.Linkname)
			}
			target.header.Name = name
			t.put(target.header, target.data)
		case tar.TypeReg:
			data, err := io.ReadAll(tr)
			if err != nil {
				return fmt.Errorf("read archive: %s: %w", name, err)
			}
			t.put(*h, data)
		}
	}
}

// put adds an entry with nothing in its header that differs between machines.
func (t *Tree) put(h tar.Header, data []byte) {
	if t.entries == nil {
		t.entries = map[string]entry{}
	}
	name := clean(h.Name)
	if old, there := t.entries[name]; there && h.Typeflag == tar.TypeDir && old.header.Typeflag == tar.TypeSymlink {
		return // a directory of another package, which is a link here
	}
	t.parents(name)
	t.entries[name] = entry{data: data, header: tar.Header{
		Typeflag: h.Typeflag, Name: name, Linkname: h.Linkname, Size: int64(len(data)),
		Mode: h.Mode & 0o7777, Uid: h.Uid, Gid: h.Gid,
	}}
}

func (t *Tree) parents(name string) {
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if _, there := t.entries[dir]; there {
			return
		}
		t.entries[dir] = entry{header: tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}}
	}
}

func clean(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	top, rest, below := strings.Cut(name, "/")
	if to, is := merged[top]; is && below {
		return to + "/" + rest
	}
	return name
}

// Layer is the tree, packed and compressed.
func (t *Tree) Layer() (v1.Layer, error) {
	var packed bytes.Buffer
	zw, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	tw := tar.NewWriter(zw)
	for _, name := range slices.Sorted(maps.Keys(t.entries)) {
		e := t.entries[name]
		e.header.ModTime = time.Unix(0, 0)
		if e.header.Typeflag == tar.TypeDir {
			e.header.Name += "/"
		}
		if err := tw.WriteHeader(&e.header); err != nil {
			return nil, fmt.Errorf("pack %s: %w", name, err)
		}
		if _, err := tw.Write(e.data); err != nil {
			return nil, fmt.Errorf("pack %s: %w", name, err)
		}
	}
	if err := errors.Join(tw.Close(), zw.Close()); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer))
}
