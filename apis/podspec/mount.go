package podspec

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/volume"
)

// localPath demands a path that leads down, by a name that is not reserved.
func localPath(at check.At, path string) { volume.File(at, path) }

func (c context) mounts(at check.At, ctr *corev1.Container) {
	names, paths := map[string]bool{}, map[string]bool{}
	for _, d := range ctr.VolumeDevices {
		names[d.Name], paths[d.DevicePath] = true, true
	}
	seen := check.Set[string]{}
	for i, m := range ctr.VolumeMounts {
		here := at.Index(i)
		name, path := here.Dot("name"), here.Dot("mountPath")
		name.Present(m.Name)
		if _, ok := c.volumes[m.Name]; !ok {
			name.NotFound(m.Name)
		}
		path.Present(m.MountPath)
		if seen.Twice(m.MountPath) {
			path.Invalid(m.MountPath, "must be unique")
		}
		if names[m.Name] {
			name.Invalid(m.Name, "must not already exist in volumeDevices")
		}
		if paths[m.MountPath] {
			path.Invalid(m.MountPath, "must not already exist as a path in volumeDevices")
		}
		// As upstream: what follows is told at the list, not at the mount.
		if m.SubPath != "" {
			volume.Inside(at.Dot("subPath"), m.SubPath)
		}
		if m.SubPathExpr != "" {
			if m.SubPath != "" {
				here.Dot("subPathExpr").Invalid(m.SubPathExpr, "subPathExpr and subPath are mutually exclusive")
			}
			volume.Inside(at.Dot("subPathExpr"), m.SubPathExpr)
		}
		if m.MountPropagation != nil {
			propagation(at.Dot("mountPropagation"), *m.MountPropagation, ctr.SecurityContext)
		}
		if m.RecursiveReadOnly != nil {
			recursiveReadOnly(at.Dot("recursiveReadOnly"), &m)
		}
	}
}

func propagation(at check.At, p corev1.MountPropagationMode, s *corev1.SecurityContext) {
	check.OneOf(at, p, corev1.MountPropagationBidirectional, corev1.MountPropagationHostToContainer, corev1.MountPropagationNone)
	privileged := s != nil && meta.Deref(s.Privileged, false)
	if p == corev1.MountPropagationBidirectional && !privileged {
		at.Forbidden("Bidirectional mount propagation is available only to privileged containers")
	}
}

func recursiveReadOnly(at check.At, m *corev1.VolumeMount) {
	switch *m.RecursiveReadOnly {
	case corev1.RecursiveReadOnlyDisabled:
	case corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible:
		if !m.ReadOnly {
			at.Forbidden("may only be specified when readOnly is true")
		}
		if meta.Deref(m.MountPropagation, corev1.MountPropagationNone) != corev1.MountPropagationNone {
			at.Forbidden("may only be specified when mountPropagation is None or not specified")
		}
	default:
		check.OneOf(at, *m.RecursiveReadOnly,
			corev1.RecursiveReadOnlyDisabled, corev1.RecursiveReadOnlyIfPossible, corev1.RecursiveReadOnlyEnabled)
	}
}

func (c context) devices(at check.At, ctr *corev1.Container) {
	names, paths := map[string]bool{}, map[string]bool{}
	for _, m := range ctr.VolumeMounts {
		names[m.Name], paths[m.MountPath] = true, true
	}
	seenNames, seenPaths := check.Set[string]{}, check.Set[string]{}
	for i, d := range ctr.VolumeDevices {
		at := at.Index(i)
		name, path := at.Dot("name"), at.Dot("devicePath")
		v, known := c.volumes[d.Name]
		name.Present(d.Name)
		if seenNames[d.Name] {
			name.Invalid(d.Name, "must be unique")
		}
		if known && v.PersistentVolumeClaim == nil && v.Ephemeral == nil {
			name.Invalid(d.Name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode")
		}
		if !known {
			name.NotFound(d.Name)
		}
		path.Present(d.DevicePath)
		if seenPaths[d.DevicePath] {
			path.Invalid(d.DevicePath, "must be unique")
		}
		if volume.Backsteps(d.DevicePath) {
			path.Invalid(d.DevicePath, "can not contain backsteps ('..')")
		} else {
			seenPaths[d.DevicePath] = true
		}
		if names[d.Name] {
			name.Invalid(d.Name, "must not already exist in volumeMounts")
		}
		if paths[d.DevicePath] {
			path.Invalid(d.DevicePath, "must not already exist as a path in volumeMounts")
		}
		if d.Name != "" {
			seenNames[d.Name] = true
		}
	}
}
