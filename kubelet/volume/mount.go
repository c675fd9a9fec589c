package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-dev/knarr/kubelet"
)

// mount adds a container's volumes to its configuration.
func (m *Mounter) mount(_ context.Context, c *kubelet.Container) error {
	for i, vm := range c.Spec.VolumeMounts {
		v := find(c.Pod, vm.Name)
		if v != nil && v.Image != nil {
			continue // the runtime's to mount
		}
		dir, err := m.Path(c.Pod.UID, vm.Name)
		if err != nil {
			return fmt.Errorf("cannot find volume %q to mount into container %q", vm.Name, c.Spec.Name)
		}
		sub, err := subPath(c, &vm)
		if err != nil {
			return err
		}
		if sub != "" {
			target := filepath.Join(m.podDir(c.Pod.UID), "volume-subpaths", vm.Name, c.Spec.Name, strconv.Itoa(i))
			if dir, err = bind(dir, sub, target); err != nil {
				// What is wrong with it could tell of the host's files.
				return fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q", vm.Name, c.Spec.Name)
			}
		}
		at := vm.MountPath
		if !path.IsAbs(at) {
			at = "/" + at
		}
		c.Config.Mounts = append(c.Config.Mounts, &runtimeapi.Mount{
			ContainerPath: at, HostPath: dir,
			Readonly:          vm.ReadOnly || readonly(v),
			RecursiveReadOnly: vm.RecursiveReadOnly != nil && *vm.RecursiveReadOnly == corev1.RecursiveReadOnlyEnabled,
			Propagation:       propagation(vm.MountPropagation),
		})
	}
	return nil
}

func find(p *corev1.Pod, name string) *corev1.Volume {
	i := slices.IndexFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })
	if i < 0 {
		return nil
	}
	return &p.Spec.Volumes[i]
}

// readonly tells whether a volume is not for containers to write.
func readonly(v *corev1.Volume) bool {
	return v != nil && (v.ConfigMap != nil || v.Secret != nil || v.DownwardAPI != nil || v.Projected != nil ||
		v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ReadOnly)
}

func propagation(mode *corev1.MountPropagationMode) runtimeapi.MountPropagation {
	switch {
	case mode == nil, *mode == corev1.MountPropagationNone:
	case *mode == corev1.MountPropagationHostToContainer:
		return runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
	case *mode == corev1.MountPropagationBidirectional:
		return runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
	}
	return runtimeapi.MountPropagation_PROPAGATION_PRIVATE
}

// subPath is the part of a volume that is mounted; empty is all of it. Of an
// expression all variables must be known.
func subPath(c *kubelet.Container, vm *corev1.VolumeMount) (string, error) {
	sub := vm.SubPath
	if vm.SubPathExpr != "" {
		var missing []string
		sub = kubelet.Expand(vm.SubPathExpr, func(name string) (string, bool) {
			for _, e := range c.Config.Envs {
				if e.Key == name {
					return string(e.Value), true
				}
			}
			missing = append(missing, name)
			return "", false
		})
		if len(missing) > 0 {
			return "", fmt.Errorf("missing value for %q", strings.Join(missing, `", "`))
		}
	}
	switch {
	case path.IsAbs(sub):
		return "", fmt.Errorf("error SubPath `%s` must not be an absolute path", sub)
	case strings.Contains("/"+sub+"/", "/../"):
		return "", fmt.Errorf("unable to provision SubPath `%s`: must not contain '..'", sub)
	}
	return sub, nil
}

// bind binds what is at sub in a volume to a place of ours and returns that.
// A container that can write the volume may change it at any time, so sub is
// opened without ever leaving the volume, and what was opened is bound, not
// what has the name. Where nothing is there a directory is made.
func bind(dir, sub, target string) (string, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return "", errors.New("not a directory")
	}
	fd, err := openBelow(dir, sub)
	if errors.Is(err, unix.ENOENT) {
		if err := makeBelow(dir, sub, info.Mode()); err != nil {
			return "", err
		}
		fd, err = openBelow(dir, sub)
	}
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	if err := unmountAll(target); err != nil {
		return "", err
	}
	if err := place(target, st.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return "", err
	}
	if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(fd), target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", err
	}
	return target, nil
}

// openBelow opens a path without leaving a directory, by links neither.
func openBelow(dir, sub string) (int, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(root) }()
	return unix.Openat2(root, sub, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS})
}

// makeBelow makes directories below one, as open as that is.
func makeBelow(dir, sub string, mode fs.FileMode) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	at := ""
	for part := range strings.SplitSeq(path.Clean(sub), "/") {
		at = path.Join(at, part)
		err := root.Mkdir(at, 0o750)
		if errors.Is(err, fs.ErrExist) {
			continue
		} else if err != nil {
			return err
		}
		if err := root.Chmod(at, mode&(fs.ModePerm|fs.ModeSetgid)); err != nil { // whatever the umask
			return err
		}
	}
	return nil
}

// place makes the directory or file that something is bound to.
func place(target string, dir bool) error {
	if err := os.RemoveAll(target); err != nil {
		return err
	}
	if dir {
		return os.MkdirAll(target, 0o750)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return err
	}
	return os.WriteFile(target, nil, 0o640)
}

// unmountAll unmounts what is mounted at a path and below it, the innermost
// first.
func unmountAll(dir string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var points []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		if p := unescape(f[4]); p == dir || strings.HasPrefix(p, dir+"/") {
			points = append(points, p)
		}
	}
	for _, p := range slices.Backward(points) {
		if err := unix.Unmount(p, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", p, err)
		}
	}
	return nil
}

// unescape reads a path as the kernel lists it, with \040 for a space.
func unescape(s string) string {
	for _, c := range []string{" ", "\t", "\n"} {
		s = strings.ReplaceAll(s, fmt.Sprintf("\\%03o", c[0]), c)
	}
	return strings.ReplaceAll(s, `\134`, `\`)
}

// removeMounted removes a directory after all in it is unmounted: what is
// mounted there may be the host's own.
func removeMounted(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := unmountAll(dir); err != nil {
		return err
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	if strings.Contains(string(b), " "+dir+"/") {
		return fmt.Errorf("something is still mounted in %s", dir)
	}
	return os.RemoveAll(dir)
}
