// Package image keeps the images that pods need: it makes the few that knarr
// brings itself, pulls the others, and removes what nobody uses.
package image

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-dev/knarr/kubelet"
)

// A Puller is what this package needs of the runtime to get images.
type Puller interface {
	PullImage(ctx context.Context, image *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, box *runtimeapi.PodSandboxConfig) (ref string, err error)
	ImageStatus(ctx context.Context, image *runtimeapi.ImageSpec) (*runtimeapi.Image, error)
}

// Secrets has the Secrets that pods refer to.
type Secrets interface {
	Secret(ctx context.Context, pod types.UID, namespace, name string) (*corev1.Secret, error)
}

// A Keeper sees to it that containers have their images. Its fields are set
// before use.
type Keeper struct {
	Puller  Puller
	Secrets Secrets
	Tell    kubelet.Tell
	// NodeConfig is a file with credentials that all pods may use, in the form
	// of docker's config.json; none where empty or not there.
	NodeConfig string
	// Dir is for the notes on who may use which image.
	Dir string

	mu      sync.Mutex
	failed  map[string]failure // by pod and image
	pulling map[string]int     // how often, by image
}

// failure is the last attempt to pull an image for a pod.
type failure struct {
	why   string
	at    time.Time
	delay time.Duration
}

const (
	firstBackoff = 10 * time.Second
	maxBackoff   = 5 * time.Minute
	// glance is how long a failure to pull is shown as such before it is shown
	// that the next attempt waits.
	glance = 3 * time.Second
)

// Hook is the images' part in a pod's life.
func (k *Keeper) Hook() kubelet.Hook {
	return kubelet.Hook{Name: "image", BeforeStart: k.start, Cleanup: k.cleanup}
}

// start sees to a container's image, and to those that it mounts as volumes.
func (k *Keeper) start(ctx context.Context, c *kubelet.Container) error {
	im, err := k.Ensure(ctx, c, c.Spec.Image, c.Spec.ImagePullPolicy)
	if err != nil {
		return err
	}
	c.Image = im
	c.Config.Image = &runtimeapi.ImageSpec{Image: im.Id, UserSpecifiedImage: c.Spec.Image, RuntimeHandler: c.Config.GetImage().GetRuntimeHandler()}
	for _, m := range c.Spec.VolumeMounts {
		for _, v := range c.Pod.Spec.Volumes {
			if v.Name != m.Name || v.Image == nil {
				continue
			}
			im, err := k.Ensure(ctx, c, v.Image.Reference, v.Image.PullPolicy)
			if err != nil {
				return err
			}
			c.Config.Mounts = append(c.Config.Mounts, &runtimeapi.Mount{
				ContainerPath: m.MountPath, Readonly: true, ImageSubPath: m.SubPath,
				Image: &runtimeapi.ImageSpec{Image: im.Id, UserSpecifiedImage: v.Image.Reference},
			})
		}
	}
	return nil
}

// Ensure returns an image that is there, pulled if the policy and its absence
// ask for it. Its error is a *kubelet.Failure, of which events have told.
func (k *Keeper) Ensure(ctx context.Context, c *kubelet.Container, name string, policy corev1.PullPolicy) (*runtimeapi.Image, error) {
	full, err := WithTag(name)
	if err != nil {
		return nil, k.fail(c, "InspectFailed", "InvalidImageName", fmt.Sprintf("Failed to apply default image tag %q: %v", name, err), 0)
	}
	spec := &runtimeapi.ImageSpec{Image: full, Annotations: c.Pod.Annotations}
	auths, err := k.auths(ctx, c.Pod, full)
	if err != nil {
		return nil, err
	}
	if policy != corev1.PullAlways || madeHere(full) {
		im, err := k.Puller.ImageStatus(ctx, spec)
		if err != nil {
			return nil, k.fail(c, "InspectFailed", "ImageInspectError", fmt.Sprintf("Failed to inspect image %q: %v", name, err), 0)
		}
		if im != nil && k.mayUse(full, im.Id, auths) {
			k.Tell(c.Pod, c.Spec.Name, corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", name))
			return im, nil
		}
		if policy == corev1.PullNever {
			return nil, k.fail(c, "ErrImageNeverPull", "ErrImageNeverPull", fmt.Sprintf("Container image %q is not present with pull policy of Never", name), 0)
		}
	}
	return k.pull(ctx, c, name, spec, auths)
}

// WithTag is an image's name with the tag that is meant where it has none.
func WithTag(name string) (string, error) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", fmt.Errorf("couldn't parse image name %q: %w", name, err)
	}
	if reference.IsNameOnly(ref) {
		return name + ":latest", nil
	}
	return name, nil
}

// fail tells of a failure and returns it.
func (k *Keeper) fail(c *kubelet.Container, event, reason, message string, after time.Duration) error {
	kind := corev1.EventTypeWarning
	if event == "BackOff" {
		kind = corev1.EventTypeNormal
	}
	k.Tell(c.Pod, c.Spec.Name, kind, event, message)
	k.Tell(c.Pod, c.Spec.Name, corev1.EventTypeWarning, "Failed", "Error: "+reason)
	return &kubelet.Failure{Reason: reason, Message: message, Told: true, After: after}
}

// cleanup forgets what it could not pull for a pod.
func (k *Keeper) cleanup(_ context.Context, uid types.UID) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key := range k.failed {
		if len(key) > len(uid) && key[:len(uid)] == string(uid) {
			delete(k.failed, key)
		}
	}
	return nil
}
