package image

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-dev/knarr/kubelet"
)

// pull pulls an image, unless that failed a short while ago.
func (k *Keeper) pull(ctx context.Context, c *kubelet.Container, name string, spec *runtimeapi.ImageSpec, auths []auth) (*runtimeapi.Image, error) {
	key := string(c.Pod.UID) + "_" + spec.Image
	if f, left := k.waits(key); left > 0 {
		return nil, k.backOff(c, name, f, left)
	}
	k.Tell(c.Pod, c.Spec.Name, corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", name))
	began := time.Now()
	if err := k.intend(spec.Image); err != nil {
		return nil, err
	}
	im, with, err := k.try(ctx, spec, auths, c.Sandbox.Config)
	if err == nil {
		err = k.pulled(im.Id, with)
	}
	// What failed has left no image, but for one that was there without it.
	if noted := k.settled(spec.Image, im == nil || err == nil); noted != nil {
		return nil, errors.Join(err, noted)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err() // the pod ends
		}
		k.Tell(c.Pod, c.Spec.Name, corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %v", name, err))
		reason, message := classify(name, err)
		k.note(key, reason+": "+message)
		k.Tell(c.Pod, c.Spec.Name, corev1.EventTypeWarning, "Failed", "Error: "+reason)
		return nil, &kubelet.Failure{Reason: reason, Message: message, Told: true, After: glance, Err: err}
	}
	k.mu.Lock()
	delete(k.failed, key)
	k.mu.Unlock()
	took := time.Since(began).Truncate(time.Millisecond)
	k.Tell(c.Pod, c.Spec.Name, corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Successfully pulled image %q in %v (%v including waiting). Image size: %d bytes.", name, took, took, im.Size))
	return im, nil
}

// try pulls with one credential after the other, or with none where there is
// none, and returns the one that was good. There is an image also with an
// error if one may have been pulled.
func (k *Keeper) try(ctx context.Context, spec *runtimeapi.ImageSpec, auths []auth, box *runtimeapi.PodSandboxConfig) (im *runtimeapi.Image, with *auth, err error) {
	candidates := []*auth{nil}
	if len(auths) > 0 {
		candidates = nil
		for i := range auths {
			candidates = append(candidates, &auths[i])
		}
	}
	var all error
	for _, a := range candidates {
		ref, err := k.Puller.PullImage(ctx, spec, a.config(), box)
		if err != nil {
			all = errors.Join(all, err)
			continue
		}
		im, err := k.Puller.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: ref})
		if err == nil && im == nil {
			err = fmt.Errorf("image %q is not there after it was pulled", ref)
		}
		if err != nil {
			im = &runtimeapi.Image{Id: ref} // it may be there
		}
		return im, a, err
	}
	return nil, nil, all
}

// classify is what a failure to pull is called, by how the runtime begins.
func classify(name string, err error) (reason, message string) {
	for _, known := range []struct{ reason, why string }{
		{"RegistryUnavailable", "the registry is unavailable"},
		{"SignatureValidationFailed", "the signature validation failed"},
	} {
		if rest, ok := strings.CutPrefix(err.Error(), known.reason); ok {
			return known.reason, fmt.Sprintf("image pull failed for %s because %s%s", name, known.why, rest)
		}
	}
	return "ErrImagePull", err.Error()
}

// waits tells how long an image is not to be pulled for a pod.
func (k *Keeper) waits(key string) (f failure, left time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f, ok := k.failed[key]
	if !ok {
		return f, 0
	}
	return f, time.Until(f.at.Add(f.delay))
}

// note notes a failure and doubles the wait after it.
func (k *Keeper) note(key, why string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failed == nil {
		k.failed = map[string]failure{}
	}
	now := time.Now()
	f := k.failed[key]
	delay := firstBackoff
	if f.delay > 0 && now.Sub(f.at) < 2*maxBackoff {
		delay = min(2*f.delay, maxBackoff)
	}
	k.failed[key] = failure{why, now, delay}
}

func (k *Keeper) backOff(c *kubelet.Container, name string, f failure, left time.Duration) error {
	message := fmt.Sprintf("Back-off pulling image %q", name)
	k.Tell(c.Pod, c.Spec.Name, corev1.EventTypeNormal, "BackOff", message)
	k.Tell(c.Pod, c.Spec.Name, corev1.EventTypeWarning, "Failed", "Error: ImagePullBackOff")
	return &kubelet.Failure{Reason: "ImagePullBackOff", Message: message + ": " + f.why, Told: true, After: left}
}
