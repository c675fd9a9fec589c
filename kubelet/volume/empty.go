package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"
)

// emptyDir makes a directory that lives as long as the pod. What is in it is
// the containers', so one that is there is left as it is.
func (m *Mounter) emptyDir(p *corev1.Pod, name string, s *corev1.EmptyDirVolumeSource) (string, error) {
	dir := m.dir(p, "empty-dir", name)
	var kind, options string
	switch {
	case s.Medium == corev1.StorageMediumMemory:
		kind, options = "tmpfs", "size="+strconv.FormatInt(m.room(p, s), 10)
		if options == "size=0" {
			options = ""
		}
	case s.Medium == corev1.StorageMediumHugePages:
		size, err := pageSize(p, "")
		if err != nil {
			return "", err
		}
		kind, options = "hugetlbfs", "pagesize="+size
	case len(s.Medium) > len(corev1.StorageMediumHugePagesPrefix) && s.Medium[:len(corev1.StorageMediumHugePagesPrefix)] == corev1.StorageMediumHugePagesPrefix:
		size, err := pageSize(p, string(s.Medium[len(corev1.StorageMediumHugePagesPrefix):]))
		if err != nil {
			return "", err
		}
		kind, options = "hugetlbfs", "pagesize="+size
	case s.Medium != corev1.StorageMediumDefault:
		return "", fmt.Errorf("unknown storage medium %q", s.Medium)
	}
	fresh, err := makeDir(dir, 0o777)
	if err != nil {
		return "", err
	}
	if kind != "" {
		mounted, err := mountOn(dir, kind, options)
		if err != nil {
			return "", err
		}
		fresh = fresh || mounted
	}
	if fresh {
		return dir, own(dir, p, false)
	}
	return dir, nil
}

// room is how large a volume in memory may grow: as its limit says, but never
// beyond what the pod may use.
func (m *Mounter) room(p *corev1.Pod, s *corev1.EmptyDirVolumeSource) int64 {
	var size int64
	lower := func(n int64) {
		if n > 0 && (size == 0 || n < size) {
			size = n
		}
	}
	if m.Allocatable != nil {
		all := m.Allocatable()
		lower(all.Memory().Value())
	}
	each := true
	sum := resource.PodLimits(p, resource.PodResourcesOptions{ContainerFn: func(r corev1.ResourceList, _ resource.ContainerType) { each = each && !r.Memory().IsZero() }})
	if each {
		lower(sum.Memory().Value())
	}
	if s.SizeLimit != nil {
		lower(s.SizeLimit.Value())
	}
	return size
}

// pageSize is the size of the huge pages that a pod asks for: the one that is
// named, or the only one.
func pageSize(p *corev1.Pod, want string) (string, error) {
	sizes := map[string]bool{}
	for _, c := range p.Spec.Containers {
		for name := range c.Resources.Requests {
			const prefix = corev1.ResourceHugePagesPrefix
			if len(name) > len(prefix) && name[:len(prefix)] == prefix {
				sizes[string(name[len(prefix):])] = true
			}
		}
	}
	switch {
	case want != "" && sizes[want]:
	case want != "":
		return "", fmt.Errorf("medium %s is not requested by a container", want)
	case len(sizes) != 1:
		return "", fmt.Errorf("medium HugePages stands for one size of pages, and the pod requests %d", len(sizes))
	default:
		for size := range sizes {
			want = size
		}
	}
	return want[:len(want)-1], nil // the kernel writes 2M for 2Mi
}

// makeDir makes a directory with those above it and tells whether it was not
// there. Its mode is as given whatever the umask.
func makeDir(dir string, perm fs.FileMode) (fresh bool, err error) {
	if _, err := os.Stat(dir); err == nil {
		return false, nil
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return false, fmt.Errorf("make volume: %w", err)
	}
	if err := os.Chmod(dir, perm); err != nil {
		return false, fmt.Errorf("make volume: %w", err)
	}
	return true, nil
}

// mountOn mounts a file system of a kind on a directory, unless something is
// mounted there, and tells whether it did.
func mountOn(dir, kind, options string) (bool, error) {
	mounted, err := isMount(dir)
	if err != nil || mounted {
		return false, err
	}
	if err := unix.Mount(kind, dir, kind, 0, options); err != nil {
		return false, fmt.Errorf("mount %s: %w", kind, err)
	}
	return true, nil
}

// isMount tells whether a directory is on another file system than the one
// that it lies in.
func isMount(dir string) (bool, error) {
	var here, above unix.Stat_t
	if err := errors.Join(unix.Lstat(dir, &here), unix.Lstat(dir+"/..", &above)); err != nil {
		return false, fmt.Errorf("look for mount: %w", err)
	}
	return here.Dev != above.Dev, nil
}
