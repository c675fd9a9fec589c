package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

func archive(t *testing.T, headers ...tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		text := ""
		if h.Typeflag == tar.TypeReg {
			text = "text of " + h.Name
			h.Size = int64(len(text))
		}
		h.ModTime = time.Now()
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func listing(t *testing.T, tree *Tree) string {
	t.Helper()
	l, err := tree.Layer()
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%o %d:%d %s", h.Mode, h.Uid, h.Gid, h.Name)
		if h.Linkname != "" {
			fmt.Fprintf(&b, " -> %s", h.Linkname)
		}
		if len(text) > 0 {
			fmt.Fprintf(&b, " %q", text)
		}
		b.WriteString("\n")
	}
}

func TestTree(t *testing.T) {
	tree := &Tree{}
	tree.Merge()
	all := func(name string) bool { return name != "usr/share/doc" }
	err := tree.Unpack(archive(
		t,
		tar.Header{Typeflag: tar.TypeDir, Name: "./"},
		tar.Header{Typeflag: tar.TypeDir, Name: "./lib/", Mode: 0o755},
		tar.Header{Typeflag: tar.TypeReg, Name: "./lib/x.so", Mode: 0o644, Uid: 3, Gid: 4},
		tar.Header{Typeflag: tar.TypeReg, Name: "./usr/bin/su", Mode: 0o4755},
		tar.Header{Typeflag: tar.TypeLink, Name: "./usr/bin/su2", Linkname: "./usr/bin/su"},
		tar.Header{Typeflag: tar.TypeReg, Name: "./usr/share/doc", Mode: 0o644},
		tar.Header{Typeflag: tar.TypeChar, Name: "./dev/null"},
	), all)
	if err != nil {
		t.Fatal(err)
	}
	tree.File("etc/a/b", 0o600, []byte("b"))
	tree.Link("bin/sh", "busybox")
	want := `777 0:0 bin -> usr/bin
755 0:0 etc/
755 0:0 etc/a/
600 0:0 etc/a/b "b"
777 0:0 lib -> usr/lib
777 0:0 lib64 -> usr/lib64
777 0:0 sbin -> usr/sbin
755 0:0 usr/
755 0:0 usr/bin/
777 0:0 usr/bin/sh -> busybox
4755 0:0 usr/bin/su "text of ./usr/bin/su"
4755 0:0 usr/bin/su2 "text of ./usr/bin/su"
755 0:0 usr/lib/
644 3:4 usr/lib/x.so "text of ./lib/x.so"
755 0:0 usr/lib64/
755 0:0 usr/sbin/
`
	if got := listing(t, tree); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// Whenever and in whichever order files come, the layer is the same.
func TestLayerSame(t *testing.T) {
	digest := func(names ...string) string {
		tree := &Tree{}
		for _, n := range names {
			if err := tree.Unpack(archive(t, tar.Header{Typeflag: tar.TypeReg, Name: n, Mode: 0o644}), func(string) bool { return true }); err != nil {
				t.Fatal(err)
			}
		}
		l, err := tree.Layer()
		if err != nil {
			t.Fatal(err)
		}
		hash, err := l.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return hash.String()
	}
	if a, b := digest("a", "b/c"), digest("b/c", "a"); a != b {
		t.Errorf("%s, then %s", a, b)
	}
	if a, b := digest("a"), digest("b"); a == b {
		t.Error("two layers of one digest")
	}
}

func TestUnpackBad(t *testing.T) {
	tree := &Tree{}
	all := func(string) bool { return true }
	if err := tree.Unpack(archive(t, tar.Header{Typeflag: tar.TypeLink, Name: "a", Linkname: "nowhere"}), all); err == nil || !strings.Contains(err.Error(), "a links to nowhere") {
		t.Errorf("a link to nothing: %v", err)
	}
	if err := tree.Unpack(strings.NewReader(strings.Repeat("x", 1024)), all); err == nil {
		t.Error("what is no archive is read")
	}
}
