package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
)

// A file is one entry of a layer. Of Data, Path and Link one is set; none is
// for a directory.
type file struct {
	Name string
	Mode fs.FileMode
	Data []byte
	Path string // of a file on the host
	Link string // where a symbolic link points
}

// A blob is content by its digest.
type blob struct {
	Type, Digest string
	Size         int64
	write        func(io.Writer) error
}

// An assembled is an image of one layer, ready to be written somewhere.
type assembled struct{ layer, config, manifest blob }

// assemble makes an image whose digest depends on nothing but what is in it.
// A command line given to a container comes behind the entrypoint, in place of cmd.
func assemble(files []file, entrypoint, cmd []string) (assembled, error) {
	layer, err := digest("application/vnd.oci.image.layer.v1.tar", func(w io.Writer) error { return pack(w, files) })
	if err != nil {
		return assembled{}, err
	}
	config, err := document("application/vnd.oci.image.config.v1+json", map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": entrypoint, "Cmd": cmd, "Env": []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, "WorkingDir": "/"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layer.Digest}},
	})
	if err != nil {
		return assembled{}, err
	}
	manifest, err := document("application/vnd.oci.image.manifest.v1+json", map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": config.descriptor(), "layers": []any{layer.descriptor()},
	})
	return assembled{layer, config, manifest}, err
}

func (b blob) descriptor() map[string]any {
	return map[string]any{"mediaType": b.Type, "digest": b.Digest, "size": b.Size}
}

func document(kind string, v any) (blob, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return blob{}, fmt.Errorf("encode %s: %w", kind, err)
	}
	return digest(kind, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// digest works out what write writes. It is written once for this and once for
// each use, so that a large layer is never in memory.
func digest(kind string, write func(io.Writer) error) (blob, error) {
	sum, size := sha256.New(), counter(0)
	if err := write(io.MultiWriter(sum, &size)); err != nil {
		return blob{}, err
	}
	return blob{kind, "sha256:" + hex.EncodeToString(sum.Sum(nil)), int64(size), write}, nil
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// pack writes files as a tar with no times and no owner but root.
func pack(w io.Writer, files []file) error {
	t := tar.NewWriter(w)
	for _, f := range files {
		if err := f.pack(t); err != nil {
			return fmt.Errorf("pack %s: %w", f.Name, err)
		}
	}
	return t.Close()
}

func (f file) pack(t *tar.Writer) error {
	h := &tar.Header{Name: f.Name, Mode: int64(f.Mode.Perm()), Format: tar.FormatUSTAR}
	if f.Mode&fs.ModeSticky != 0 {
		h.Mode |= 0o1000
	}
	var content io.Reader
	switch {
	case f.Link != "":
		h.Typeflag, h.Linkname = tar.TypeSymlink, f.Link
	case f.Path != "":
		src, err := os.Open(f.Path)
		if err != nil {
			return err
		}
		defer func() { _ = src.Close() }() // only read
		info, err := src.Stat()
		if err != nil {
			return err
		}
		h.Typeflag, h.Size, content = tar.TypeReg, info.Size(), src
	case f.Data != nil:
		h.Typeflag, h.Size, content = tar.TypeReg, int64(len(f.Data)), bytes.NewReader(f.Data)
	default:
		h.Typeflag = tar.TypeDir
	}
	if err := t.WriteHeader(h); err != nil || content == nil {
		return err
	}
	_, err := io.Copy(t, content)
	return err
}
