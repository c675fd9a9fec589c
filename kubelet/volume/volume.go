// Package volume makes pods' volumes and says where containers find them.
//
// It has those that need nobody else: emptyDir, hostPath, configMap, secret,
// downwardAPI and projected, and claims whose volume is a path of the host. Of
// others it says that it does not have them.
package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/kubelet"
)

// Objects has what pods refer to. Whoever has it calls for the pod to be
// prepared again when one of them changes.
type Objects interface {
	ConfigMap(ctx context.Context, pod types.UID, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, pod types.UID, namespace, name string) (*corev1.Secret, error)
}

// A Mounter makes volumes. Its fields are set before use; those that are nil
// make the volumes that need them fail.
type Mounter struct {
	Root    string // of pods' directories
	Objects Objects
	// Token asks for a token of a service account.
	Token func(ctx context.Context, namespace, account string, t *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)
	// Claim finds the volume that is bound to a claim.
	Claim func(ctx context.Context, namespace, name string) (*corev1.PersistentVolume, error)
	// Allocatable is what pods may use of the node.
	Allocatable func() corev1.ResourceList
	// Refresh has a pod prepared again, because a token of it grows old.
	Refresh func(pod types.UID)
	Tell    kubelet.Tell

	mu   sync.Mutex
	pods map[types.UID]*state
}

// state is what is known of one pod's volumes.
type state struct {
	paths  map[string]string // by the volume's name
	tokens map[string]token
	timer  *time.Timer // for the next token
}

// Hook is the volumes' part in a pod's life. In BeforeStart it must come after
// the environment is known.
func (m *Mounter) Hook() kubelet.Hook {
	return kubelet.Hook{Name: "volume", Prepare: m.prepare, BeforeStart: m.mount, Cleanup: m.cleanup}
}

// Path is where a volume of a prepared pod is on the host.
func (m *Mounter) Path(pod types.UID, name string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.pods[pod]; s != nil && s.paths[name] != "" {
		return s.paths[name], nil
	}
	return "", fmt.Errorf("cannot find volume %q", name)
}

func (m *Mounter) podDir(uid types.UID) string { return filepath.Join(m.Root, "pods", string(uid)) }

// dir is a volume's directory; the names of the plugins are upstream's.
func (m *Mounter) dir(p *corev1.Pod, plugin, name string) string {
	return filepath.Join(m.podDir(p.UID), "volumes", "kubernetes.io~"+plugin, name)
}

// prepare makes the volumes that containers use, side by side, or brings them
// up to date.
func (m *Mounter) prepare(ctx context.Context, s *kubelet.Sandbox) error {
	p := s.Pod
	wanted := used(p)
	var all error
	var mu sync.Mutex
	var wait sync.WaitGroup
	paths := map[string]string{}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if !wanted[v.Name] || v.Image != nil { // an image is the runtime's to mount
			continue
		}
		wait.Go(func() {
			path, err := m.make(ctx, p, v)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				all = errors.Join(all, m.failed(ctx, p, v, err))
				return
			}
			paths[v.Name] = path
		})
	}
	wait.Wait()
	m.mu.Lock()
	st := m.state(p.UID)
	maps.Copy(st.paths, paths)
	m.mu.Unlock()
	m.schedule(p.UID)
	return all
}

// state is a pod's state; the lock is held.
func (m *Mounter) state(uid types.UID) *state {
	if m.pods == nil {
		m.pods = map[types.UID]*state{}
	}
	if m.pods[uid] == nil {
		m.pods[uid] = &state{paths: map[string]string{}, tokens: map[string]token{}}
	}
	return m.pods[uid]
}

// failed tells of a volume that could not be made.
func (m *Mounter) failed(ctx context.Context, p *corev1.Pod, v *corev1.Volume, err error) error {
	message := fmt.Sprintf("MountVolume.SetUp failed for volume %q : %v", v.Name, err)
	if ctx.Err() == nil {
		m.Tell(p, "", corev1.EventTypeWarning, "FailedMount", message)
	}
	return &kubelet.Failure{Reason: "FailedMount", Message: message, Told: true, Err: err}
}

// used names the volumes that a container of the pod uses.
func used(p *corev1.Pod) map[string]bool {
	names := map[string]bool{}
	add := func(mounts []corev1.VolumeMount, env []corev1.EnvVar) {
		for _, m := range mounts {
			names[m.Name] = true
		}
		for _, e := range env {
			if e.ValueFrom != nil && e.ValueFrom.FileKeyRef != nil {
				names[e.ValueFrom.FileKeyRef.VolumeName] = true
			}
		}
	}
	for _, c := range p.Spec.InitContainers {
		add(c.VolumeMounts, c.Env)
	}
	for _, c := range p.Spec.Containers {
		add(c.VolumeMounts, c.Env)
	}
	for _, c := range p.Spec.EphemeralContainers {
		add(c.VolumeMounts, c.Env)
	}
	return names
}

// make makes one volume and returns where it is.
func (m *Mounter) make(ctx context.Context, p *corev1.Pod, v *corev1.Volume) (string, error) {
	switch {
	case v.EmptyDir != nil:
		return m.emptyDir(p, v.Name, v.EmptyDir)
	case v.HostPath != nil:
		return v.HostPath.Path, checkHostPath(v.HostPath)
	case v.ConfigMap != nil:
		s := v.ConfigMap
		return m.project(ctx, p, "configmap", v.Name, mode(s.DefaultMode), []corev1.VolumeProjection{{
			ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: s.LocalObjectReference, Items: s.Items, Optional: s.Optional},
		}})
	case v.Secret != nil:
		s := v.Secret
		return m.project(ctx, p, "secret", v.Name, mode(s.DefaultMode), []corev1.VolumeProjection{{
			Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: s.SecretName}, Items: s.Items, Optional: s.Optional},
		}})
	case v.DownwardAPI != nil:
		s := v.DownwardAPI
		return m.project(ctx, p, "downward-api", v.Name, mode(s.DefaultMode), []corev1.VolumeProjection{{
			DownwardAPI: &corev1.DownwardAPIProjection{Items: s.Items},
		}})
	case v.Projected != nil:
		return m.project(ctx, p, "projected", v.Name, mode(v.Projected.DefaultMode), v.Projected.Sources)
	case v.PersistentVolumeClaim != nil:
		return m.claim(ctx, p, v.PersistentVolumeClaim.ClaimName)
	case v.Ephemeral != nil:
		return m.claim(ctx, p, p.Name+"-"+v.Name)
	}
	return "", errors.New("this kind of volume is not supported by this kubelet")
}

const defaultMode = 0o644

func mode(m *int32) int32 {
	if m == nil {
		return defaultMode
	}
	return *m
}

// cleanup unmounts and removes a pod's volumes.
func (m *Mounter) cleanup(_ context.Context, uid types.UID) error {
	m.mu.Lock()
	if s := m.pods[uid]; s != nil && s.timer != nil {
		s.timer.Stop()
	}
	delete(m.pods, uid)
	m.mu.Unlock()
	for _, dir := range []string{"volume-subpaths", "volumes"} {
		if err := removeMounted(filepath.Join(m.podDir(uid), dir)); err != nil {
			return fmt.Errorf("remove volumes: %w", err)
		}
	}
	return nil
}
