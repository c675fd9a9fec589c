package volume

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
)

// own gives a volume to the pod's group, if it has one, so that containers of
// any user can read it, and write it unless it is read-only. What is made in
// its directories later is the group's too.
func own(dir string, p *corev1.Pod, readonly bool) error {
	sc := p.Spec.SecurityContext
	if sc == nil || sc.FSGroup == nil {
		return nil
	}
	gid := int(*sc.FSGroup)
	if sc.FSGroupChangePolicy != nil && *sc.FSGroupChangePolicy == corev1.FSGroupChangeOnRootMismatch && owned(dir, gid, readonly) {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("give volume to group: %w", err)
		}
		if err := os.Lchown(path, -1, gid); err != nil {
			return fmt.Errorf("give volume to group: %w", err)
		}
		info, err := e.Info()
		if err != nil {
			return fmt.Errorf("give volume to group: %w", err)
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			return nil
		}
		if err := os.Chmod(path, info.Mode()|groupMode(info.IsDir(), readonly)); err != nil {
			return fmt.Errorf("give volume to group: %w", err)
		}
		return nil
	})
}

// groupMode is what a file's group needs.
func groupMode(dir, readonly bool) fs.FileMode {
	m := fs.FileMode(0o660)
	if readonly {
		m = 0o440
	}
	if dir {
		m |= 0o110 | fs.ModeSetgid
	}
	return m
}

// owned tells whether a volume looks as if it were the group's already.
func owned(dir string, gid int, readonly bool) bool {
	info, err := os.Stat(dir)
	if err != nil {
		return false
	}
	want := groupMode(true, readonly)
	return group(info) == gid && info.Mode()&want == want
}
