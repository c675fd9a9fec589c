// Package lifecycle runs what a container has asked for right after its start
// and before its end.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/kubelet"
)

// A Runner runs handlers.
type Runner struct {
	// Exec runs a command in a container.
	Exec func(ctx context.Context, id string, command []string, limit time.Duration) (output []byte, code int32, err error)
	// Request is the request that an action describes; where it names no host it
	// is for ip.
	Request func(ctx context.Context, a *corev1.HTTPGetAction, c *corev1.Container, ip, agent string) (*http.Request, error)
	Client  *http.Client
	Tell    kubelet.Tell
}

// Hook is the handlers' part in a pod's life.
func (r *Runner) Hook() kubelet.Hook {
	return kubelet.Hook{Name: "lifecycle", AfterStart: r.postStart, BeforeKill: r.preStop}
}

const (
	agent   = "kube-lifecycle/1.36"
	maxBody = 10 << 10
)

func (r *Runner) postStart(ctx context.Context, c *kubelet.Container) error {
	if c.Spec.Lifecycle == nil || c.Spec.Lifecycle.PostStart == nil {
		return nil
	}
	err := r.run(ctx, c, c.Spec.Lifecycle.PostStart)
	if err != nil {
		// What went wrong may have secrets in it, so the event does not say.
		r.Tell(c.Pod, c.Spec.Name, corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed")
	}
	return err
}

func (r *Runner) preStop(ctx context.Context, c *kubelet.Container) error {
	if c.Spec == nil || c.Spec.Lifecycle == nil || c.Spec.Lifecycle.PreStop == nil {
		return nil
	}
	err := r.run(ctx, c, c.Spec.Lifecycle.PreStop)
	if err != nil && ctx.Err() == nil {
		r.Tell(c.Pod, c.Spec.Name, corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed")
	}
	return err
}

func (r *Runner) run(ctx context.Context, c *kubelet.Container, h *corev1.LifecycleHandler) error {
	pod := fmt.Sprintf("%s_%s(%s)", c.Pod.Name, c.Pod.Namespace, c.Pod.UID)
	switch {
	case h.Exec != nil:
		out, code, err := r.Exec(ctx, c.ID, h.Exec.Command, 0)
		if err == nil && code != 0 {
			err = fmt.Errorf("command '%s' exited with %d: %s", strings.Join(h.Exec.Command, " "), code, out)
		}
		if err != nil {
			return failure(err, "Exec lifecycle hook (%v) for Container %q in Pod %q failed - error: %v, message: %q", h.Exec.Command, c.Spec.Name, pod, err, out)
		}
	case h.HTTPGet != nil:
		if err := r.get(ctx, c, h.HTTPGet); err != nil {
			return failure(err, "HTTP lifecycle hook (%s) for Container %q in Pod %q failed - error: %v", h.HTTPGet.Path, c.Spec.Name, pod, err)
		}
	case h.Sleep != nil:
		t := time.NewTimer(time.Duration(h.Sleep.Seconds) * time.Second)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return failure(ctx.Err(), "Sleep lifecycle hook (%d) for Container %q in Pod %q failed - error: %v", h.Sleep.Seconds, c.Spec.Name, pod, ctx.Err())
		}
	}
	return nil
}

// failure is err in the words that the status shows.
func failure(err error, format string, args ...any) error {
	return &kubelet.Failure{Reason: "PostStartHookError", Message: fmt.Sprintf(format, args...), Told: true, Err: err}
}

// get asks once, and again without encryption where that is what answers: an
// old kubelet never used any. Any answer will do.
func (r *Runner) get(ctx context.Context, c *kubelet.Container, a *corev1.HTTPGetAction) error {
	req, err := r.Request(ctx, a, c.Spec, c.Pod.Status.PodIP, agent)
	if err != nil {
		return err
	}
	err = r.do(req)
	if errors.Is(err, http.ErrSchemeMismatch) {
		req = req.Clone(ctx)
		req.URL.Scheme = "http"
		req.Header.Del("Authorization")
		if err = r.do(req); err == nil {
			r.Tell(c.Pod, "", corev1.EventTypeWarning, "LifecycleHTTPFallback", fmt.Sprintf("request to HTTPS lifecycle hook %s got HTTP response, retry with HTTP succeeded", req.URL.Host))
		}
	}
	return err
}

func (r *Runner) do(req *http.Request) error {
	resp, err := r.Client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.CopyN(io.Discard, resp.Body, maxBody)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
