package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-dev/knarr/kubelet"
)

// A file is what is to stand at a path of a volume.
type file struct {
	data []byte
	mode int32
	uid  *int64 // its owner where that is not root
}

// project makes a volume of what sources say, or brings it up to date. All but
// those of ConfigMaps are in memory only.
func (m *Mounter) project(ctx context.Context, p *corev1.Pod, plugin, name string, mode int32, sources []corev1.VolumeProjection) (string, error) {
	files := map[string]file{}
	for i := range sources {
		if err := m.add(ctx, files, p, name, mode, &sources[i]); err != nil {
			return "", err
		}
	}
	dir := m.dir(p, plugin, name)
	if _, err := makeDir(dir, 0o777); err != nil {
		return "", err
	}
	if plugin != "configmap" {
		if _, err := mountOn(dir, "tmpfs", m.tmpfs()); err != nil {
			return "", err
		}
	}
	return dir, write(dir, files, func(d string) error { return own(d, p, true) })
}

// tmpfs are the options of what holds secrets.
func (m *Mounter) tmpfs() string {
	if m.Allocatable != nil {
		all := m.Allocatable()
		if n := all.Memory().Value(); n > 0 {
			return fmt.Sprintf("size=%d", n)
		}
	}
	return ""
}

// add adds what one source says.
func (m *Mounter) add(ctx context.Context, files map[string]file, p *corev1.Pod, volume string, mode int32, s *corev1.VolumeProjection) error {
	switch {
	case s.ConfigMap != nil:
		cm, err := m.Objects.ConfigMap(ctx, p.UID, p.Namespace, s.ConfigMap.Name)
		if err != nil {
			return unless(s.ConfigMap.Optional, err)
		}
		data := make(map[string][]byte, len(cm.Data)+len(cm.BinaryData))
		for k, v := range cm.Data {
			data[k] = []byte(v)
		}
		maps.Copy(data, cm.BinaryData)
		return pick(files, data, s.ConfigMap.Items, mode, s.ConfigMap.Optional, "config")
	case s.Secret != nil:
		secret, err := m.Objects.Secret(ctx, p.UID, p.Namespace, s.Secret.Name)
		if err != nil {
			return unless(s.Secret.Optional, err)
		}
		return pick(files, secret.Data, s.Secret.Items, mode, s.Secret.Optional, "secret")
	case s.DownwardAPI != nil:
		return m.downward(files, p, mode, s.DownwardAPI.Items)
	case s.ServiceAccountToken != nil:
		t := s.ServiceAccountToken
		value, err := m.token(ctx, p, volume, t)
		if err != nil {
			return err
		}
		f := file{data: []byte(value), mode: mode, uid: oneUser(p)}
		if f.uid != nil || p.Spec.SecurityContext != nil && p.Spec.SecurityContext.FSGroup != nil {
			f.mode = 0o600 // for its owner, and the group if there is one
		}
		return put(files, t.Path, f)
	case s.ClusterTrustBundle != nil, s.PodCertificate != nil:
		return errors.New("projections of trust bundles and pod certificates are not supported by this kubelet")
	}
	return nil
}

// pick adds all of an object's data, or the items.
func pick(files map[string]file, data map[string][]byte, items []corev1.KeyToPath, mode int32, optional *bool, kind string) error {
	if len(items) == 0 {
		for k, v := range data {
			if err := put(files, k, file{data: v, mode: mode}); err != nil {
				return err
			}
		}
		return nil
	}
	for _, it := range items {
		v, ok := data[it.Key]
		if !ok {
			if optional != nil && *optional {
				continue
			}
			return fmt.Errorf("references non-existent %s key: %s", kind, it.Key)
		}
		f := file{data: v, mode: mode}
		if it.Mode != nil {
			f.mode = *it.Mode
		}
		if err := put(files, it.Path, f); err != nil {
			return err
		}
	}
	return nil
}

// unless is err, but nil where what was not found is optional.
func unless(optional *bool, err error) error {
	if optional != nil && *optional && apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// put adds a file, whose path must stay within the volume and must not meet
// the names that writing uses.
func put(files map[string]file, name string, f file) error {
	clean := path.Clean(name)
	if name == "" || path.IsAbs(name) || strings.HasPrefix(clean, "..") || strings.Contains("/"+name+"/", "/../") {
		return fmt.Errorf("invalid path %q in volume", name)
	}
	files[clean] = f
	return nil
}

// downward adds fields of the pod.
func (m *Mounter) downward(files map[string]file, p *corev1.Pod, mode int32, items []corev1.DownwardAPIVolumeFile) error {
	for _, it := range items {
		var value string
		var err error
		switch {
		case it.FieldRef != nil:
			value, err = kubelet.Field(p, it.FieldRef.FieldPath)
		case it.ResourceFieldRef != nil:
			var all corev1.ResourceList
			if m.Allocatable != nil {
				all = m.Allocatable()
			}
			value, err = kubelet.Resource(p, nil, it.ResourceFieldRef, all)
		}
		if err != nil {
			return err
		}
		f := file{data: []byte(value), mode: mode}
		if it.Mode != nil {
			f.mode = *it.Mode
		}
		if err := put(files, it.Path, f); err != nil {
			return err
		}
	}
	return nil
}

// oneUser is the user that all containers of the pod run as; nil where they
// differ or do not say.
func oneUser(p *corev1.Pod) (uid *int64) {
	var all []*corev1.SecurityContext
	for _, c := range p.Spec.InitContainers {
		all = append(all, c.SecurityContext)
	}
	for _, c := range p.Spec.Containers {
		all = append(all, c.SecurityContext)
	}
	for _, c := range p.Spec.EphemeralContainers {
		all = append(all, c.SecurityContext)
	}
	for _, sc := range all {
		var own *int64
		if ps := p.Spec.SecurityContext; ps != nil {
			own = ps.RunAsUser
		}
		if sc != nil && sc.RunAsUser != nil {
			own = sc.RunAsUser
		}
		if own == nil || uid != nil && *uid != *own {
			return nil
		}
		uid = own
	}
	return uid
}
