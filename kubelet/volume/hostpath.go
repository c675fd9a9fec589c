package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	corev1 "k8s.io/api/core/v1"
)

// checkHostPath sees that a path of the host is what the pod says that it is,
// and makes it where the pod asks for that.
func checkHostPath(s *corev1.HostPathVolumeSource) error {
	if s.Type == nil || *s.Type == corev1.HostPathUnset {
		return nil
	}
	info, err := os.Stat(s.Path)
	there := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at host path: %w", err)
	}
	is := func(ok bool, what string) error {
		if there && ok {
			return nil
		}
		return fmt.Errorf("hostPath type check failed: %s is not a %s", s.Path, what)
	}
	var m fs.FileMode
	if there {
		m = info.Mode()
	}
	switch *s.Type {
	case corev1.HostPathDirectoryOrCreate:
		if !there {
			return os.MkdirAll(s.Path, 0o755)
		}
		return is(m.IsDir(), "directory")
	case corev1.HostPathDirectory:
		return is(m.IsDir(), "directory")
	case corev1.HostPathFileOrCreate:
		if !there {
			f, err := os.OpenFile(s.Path, os.O_CREATE|os.O_RDONLY, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}
		return is(m.IsRegular(), "file")
	case corev1.HostPathFile:
		return is(m.IsRegular(), "file")
	case corev1.HostPathSocket:
		return is(m&fs.ModeSocket != 0, "socket")
	case corev1.HostPathCharDev:
		return is(m&fs.ModeCharDevice != 0, "character device")
	case corev1.HostPathBlockDev:
		return is(m&fs.ModeDevice != 0 && m&fs.ModeCharDevice == 0, "block device")
	case corev1.HostPathUnset:
	}
	return fmt.Errorf("%s is an invalid volume type", *s.Type)
}

// claim finds the volume behind a claim. Those that are not a path of this
// host are a driver's, and there are none.
func (m *Mounter) claim(ctx context.Context, p *corev1.Pod, name string) (string, error) {
	if m.Claim == nil {
		return "", errors.New("persistent volumes are not supported by this kubelet")
	}
	pv, err := m.Claim(ctx, p.Namespace, name)
	if err != nil {
		return "", err
	}
	switch {
	case pv.Spec.HostPath != nil:
		return pv.Spec.HostPath.Path, checkHostPath(pv.Spec.HostPath)
	case pv.Spec.Local != nil:
		dir := pv.Spec.Local.Path
		if _, err := os.Stat(dir); err != nil {
			return "", fmt.Errorf("look at local volume: %w", err)
		}
		return dir, own(dir, p, false)
	}
	return "", fmt.Errorf("persistent volume %s is of a kind that is not supported by this kubelet", pv.Name)
}
