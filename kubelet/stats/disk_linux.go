package stats

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// An FS is how full a file system is.
type FS struct {
	Device             uint64 // tells file systems apart
	Capacity           uint64
	Available          uint64 // to ordinary users
	Used               uint64
	Inodes, InodesFree uint64
}

// Statfs measures the file system that path is on.
func Statfs(path string) (FS, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return FS{}, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return FS{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	size := uint64(s.Bsize)
	return FS{
		Device: st.Dev, Capacity: s.Blocks * size, Available: s.Bavail * size, Used: (s.Blocks - s.Bfree) * size,
		Inodes: s.Files, InodesFree: s.Ffree,
	}, nil
}

// A usage is what a directory takes up.
type usage struct{ bytes, inodes uint64 }

// du adds up a directory as far as it is on one file system. What vanishes
// while it looks is not counted, and a file with several names is once.
func du(dir string) (u usage, err error) {
	var root unix.Stat_t
	if err := unix.Lstat(dir, &root); err != nil {
		return u, &os.PathError{Op: "lstat", Path: dir, Err: err}
	}
	seen := map[uint64]bool{}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		var st unix.Stat_t
		switch err := unix.Lstat(path, &st); {
		case err != nil:
			return nil //nolint:nilerr // it has vanished
		case st.Dev != root.Dev && e.IsDir():
			return filepath.SkipDir
		case st.Nlink > 1 && !e.IsDir() && seen[st.Ino]:
			return nil
		}
		seen[st.Ino] = st.Nlink > 1
		u.bytes += uint64(st.Blocks) * 512
		u.inodes++
		return nil
	})
	return u, err
}
