package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// mountMark is a directory beside the pins which says that the file system
// was mounted by us, and so is ours to unmount.
const mountMark = "mounted"

// systemDir is where a system's BPF file system is. No directory can be made
// there before it is mounted.
const systemDir = "/sys/fs/bpf"

// mount sees to it that dir is there and on a BPF file system.
func mount(dir string) error {
	if ok, err := isBPF(dir); err != nil {
		return err
	} else if ok {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make pin directory: %w", err)
		}
		return nil
	}
	point := mountPoint(dir)
	if err := os.MkdirAll(point, 0o700); err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	if err := unix.Mount("bpf", point, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpf file system on %s: %w", point, err)
	}
	if err := os.MkdirAll(filepath.Join(dir, mountMark), 0o700); err != nil {
		return fmt.Errorf("make pin directory: %w", err)
	}
	return nil
}

// unmount ends what mount began: dir goes, and with it the file system if it
// is ours and nobody else has come to use it.
func unmount(dir string, ours bool) error {
	point := mountPoint(dir)
	if dir != point {
		if err := os.Remove(dir); err != nil {
			return fmt.Errorf("remove pin directory: %w", err)
		}
	}
	if !ours {
		return nil
	}
	entries, err := os.ReadDir(point)
	if err != nil {
		return fmt.Errorf("list %s: %w", point, err)
	}
	if slices.ContainsFunc(entries, os.DirEntry.IsDir) {
		return nil
	}
	if err := unix.Unmount(point, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", point, err)
	}
	return nil
}

func mountPoint(dir string) string {
	if dir == systemDir || strings.HasPrefix(dir, systemDir+"/") {
		return systemDir
	}
	return dir
}

// isBPF tells whether dir, or what is there of the way to it, is on a BPF
// file system.
func isBPF(dir string) (bool, error) {
	for {
		var fs unix.Statfs_t
		err := unix.Statfs(dir, &fs)
		if errors.Is(err, unix.ENOENT) && dir != filepath.Dir(dir) {
			dir = filepath.Dir(dir)
			continue
		}
		if err != nil {
			return false, fmt.Errorf("look at %s: %w", dir, err)
		}
		return fs.Type == unix.BPF_FS_MAGIC, nil
	}
}

// cgroupRoot finds where cgroup2 is mounted, on a host with nothing else or
// beside version 1.
func cgroupRoot() (string, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup2"))
	if err != nil {
		return "", fmt.Errorf("list mounts: %w", err)
	}
	for _, m := range mounts {
		if m.Root == "/" {
			return m.Mountpoint, nil
		}
	}
	return "", errors.New("no cgroup2 file system is mounted")
}
