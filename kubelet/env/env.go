// Package env works out the environment of containers: what the pod says, what
// it takes from ConfigMaps, Secrets, files and its own fields, and where the
// services of its namespace are.
package env

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-dev/knarr/kubelet"
)

// Objects has what pods refer to.
type Objects interface {
	ConfigMap(ctx context.Context, pod types.UID, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, pod types.UID, namespace, name string) (*corev1.Secret, error)
}

// A Maker makes environments. Fields other than Objects may be nil.
type Maker struct {
	Objects Objects
	// Services are those of a namespace; an error says that they are not known yet.
	Services func(namespace string) ([]*corev1.Service, error)
	// Allocatable is what pods may use of the node.
	Allocatable func() corev1.ResourceList
	// Volume is where a volume of a pod is mounted.
	Volume func(pod types.UID, name string) (string, error)
}

// Hook is the environment's part in a pod's life.
func (m *Maker) Hook() kubelet.Hook {
	return kubelet.Hook{Name: "env", BeforeStart: m.fill}
}

// fill sets a container's environment, and expands its command by it.
func (m *Maker) fill(ctx context.Context, c *kubelet.Container) error {
	services, err := m.services(c.Pod)
	if err != nil {
		return err
	}
	own, err := m.own(ctx, c, services)
	if err != nil {
		return err
	}
	for name, value := range pairs(services) {
		if _, ok := own.values[name]; !ok {
			own.set(name, value)
		}
	}
	for _, name := range own.names {
		c.Config.Envs = append(c.Config.Envs, &runtimeapi.KeyValue{Key: name, Value: []byte(own.values[name])})
	}
	c.Config.Command = expandAll(c.Spec.Command, own.get)
	c.Config.Args = expandAll(c.Spec.Args, own.get)
	return nil
}

func expandAll(list []string, get func(string) (string, bool)) []string {
	out := make([]string, 0, len(list))
	for _, s := range list {
		out = append(out, kubelet.Expand(s, get))
	}
	return out
}

// pairs yields a map in the order of its keys.
func pairs(m map[string]string) func(func(string, string) bool) {
	return func(yield func(string, string) bool) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}

// variables are variables in the order in which they were first set.
type variables struct {
	names  []string
	values map[string]string
}

func (v *variables) set(name, value string) {
	if _, ok := v.values[name]; !ok {
		v.names = append(v.names, name)
	}
	v.values[name] = value
}

func (v *variables) get(name string) (string, bool) {
	value, ok := v.values[name]
	return value, ok
}

// own are the variables that the container's specification sets. Of one name
// the last counts.
func (m *Maker) own(ctx context.Context, c *kubelet.Container, services map[string]string) (*variables, error) {
	own := &variables{values: map[string]string{}}
	for _, from := range c.Spec.EnvFrom {
		data, err := m.all(ctx, c.Pod, from)
		if err != nil {
			return nil, err
		}
		for name, value := range pairs(data) {
			own.set(from.Prefix+name, value)
		}
	}
	for _, e := range c.Spec.Env {
		value, ok := kubelet.Expand(e.Value, func(name string) (string, bool) {
			if v, ok := own.get(name); ok {
				return v, true
			}
			v, ok := services[name]
			return v, ok
		}), true
		if e.Value == "" && e.ValueFrom != nil {
			var err error
			if value, ok, err = m.source(ctx, c, e.ValueFrom); err != nil {
				return nil, err
			}
		}
		if ok {
			own.set(e.Name, value)
		}
	}
	return own, nil
}

// all is what a ConfigMap or Secret has; nothing where it need not be there
// and is not.
func (m *Maker) all(ctx context.Context, p *corev1.Pod, from corev1.EnvFromSource) (map[string]string, error) {
	switch {
	case from.ConfigMapRef != nil:
		cm, err := m.Objects.ConfigMap(ctx, p.UID, p.Namespace, from.ConfigMapRef.Name)
		if err != nil {
			return nil, unless(from.ConfigMapRef.Optional, err)
		}
		return cm.Data, nil
	case from.SecretRef != nil:
		s, err := m.Objects.Secret(ctx, p.UID, p.Namespace, from.SecretRef.Name)
		if err != nil {
			return nil, unless(from.SecretRef.Optional, err)
		}
		data := make(map[string]string, len(s.Data))
		for k, v := range s.Data {
			data[k] = string(v)
		}
		return data, nil
	}
	return nil, nil
}

// unless is err, but nil where what was not found is optional.
func unless(optional *bool, err error) error {
	if optional != nil && *optional && apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// source is the value of a variable that is taken from elsewhere; ok is false
// where it is optional and not there.
func (m *Maker) source(ctx context.Context, c *kubelet.Container, from *corev1.EnvVarSource) (value string, ok bool, err error) {
	p := c.Pod
	switch {
	case from.FieldRef != nil:
		value, err = kubelet.Field(p, from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		var all corev1.ResourceList
		if m.Allocatable != nil {
			all = m.Allocatable()
		}
		value, err = kubelet.Resource(p, c.Spec, from.ResourceFieldRef, all)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		cm, err := m.Objects.ConfigMap(ctx, p.UID, p.Namespace, ref.Name)
		if err != nil {
			return "", false, unless(ref.Optional, err)
		}
		value, ok = cm.Data[ref.Key]
		return value, ok, found(ok, ref.Optional, "key %v in ConfigMap %v/%v", ref.Key, p.Namespace, ref.Name)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		s, err := m.Objects.Secret(ctx, p.UID, p.Namespace, ref.Name)
		if err != nil {
			return "", false, unless(ref.Optional, err)
		}
		b, ok := s.Data[ref.Key]
		return string(b), ok, found(ok, ref.Optional, "key %v in Secret %v/%v", ref.Key, p.Namespace, ref.Name)
	case from.FileKeyRef != nil:
		ref := from.FileKeyRef
		value, err = m.file(p.UID, ref)
		return value, value != "", cmpErr(err, found(value != "", ref.Optional, "environment variable key %q in file %q", ref.Key, ref.Path))
	}
	return "", false, nil
}

func cmpErr(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

// found is an error where something that must be there is not.
func found(ok bool, optional *bool, format string, args ...any) error {
	if ok || optional != nil && *optional {
		return nil
	}
	return fmt.Errorf("couldn't find "+format, args...)
}

// file is a variable's value in a file of a volume.
func (m *Maker) file(pod types.UID, ref *corev1.FileKeySelector) (string, error) {
	dir, err := m.Volume(pod, ref.VolumeName)
	if err != nil {
		return "", err
	}
	root, err := os.OpenRoot(dir) // nothing outside of the volume
	if err != nil {
		return "", fmt.Errorf("open volume %q: %w", ref.VolumeName, err)
	}
	defer func() { _ = root.Close() }()
	b, err := root.ReadFile(filepath.Clean(strings.TrimPrefix(ref.Path, "/")))
	if err != nil {
		return "", fmt.Errorf("read env file: %w", err)
	}
	value, err := parse(string(b), ref.Key)
	if err != nil {
		return "", fmt.Errorf("couldn't parse env file: %w", err)
	}
	return value, nil
}
