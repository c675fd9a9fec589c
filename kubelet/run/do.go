package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/kubelet"
	"github.com/knarr-dev/knarr/kubelet/pod"
)

// maxRetry is the longest wait before something that failed is tried again,
// where the failure does not say.
const maxRetry = 10 * time.Second

// do sets a step off and notes its outcome when it is there. A step of the same
// key that goes on is given up for it.
func (w *worker) do(ctx context.Context, step pod.Step) {
	key := step.Key()
	if before, ok := w.ops[key]; ok {
		before.cancel()
	}
	if step.Op == pod.Forget {
		w.clear()
		w.done = true
		return
	}
	if step.Op == pod.PreStop || step.Op == pod.Stop {
		w.condemn(step)
	}
	ctx, cancel := context.WithCancel(ctx)
	w.lastOp++
	this := op{w.lastOp, cancel}
	w.ops[key], w.st.Doing[key] = this, step
	f := w.operation(step)
	w.l.wait.Go(func() {
		after, err := f(ctx)
		cancel()
		w.post(func(w *worker) {
			w.old = true
			if w.ops[key].id != this.id {
				return // overtaken
			}
			delete(w.ops, key)
			delete(w.st.Doing, key)
			w.outcome(step, err)
			if after != nil {
				after(&w.st)
			}
		})
	})
}

// outcome notes whether a step has failed and when it may be tried again.
func (w *worker) outcome(step pod.Step, err error) {
	who := step.Subject()
	if err == nil || !w.st.Since.IsZero() && errors.Is(err, context.Canceled) {
		delete(w.fails, who)
		delete(w.st.Trouble, who)
		return
	}
	f, ok := errors.AsType[*kubelet.Failure](err)
	if !ok {
		f = &kubelet.Failure{Reason: string(step.Op), Message: err.Error()}
	}
	retry := f.After
	if retry == 0 {
		retry = min(500*time.Millisecond<<min(w.fails[who], 10), maxRetry)
	}
	w.fails[who]++
	w.st.Trouble[who] = pod.Trouble{Reason: f.Reason, Message: f.Message, Until: time.Now().Add(retry)}
	w.report(step, f)
}

// operation is what a step does. It must not touch the worker's state: what it
// has for that it returns, to be done by the worker.
func (w *worker) operation(step pod.Step) func(context.Context) (after func(*pod.State), err error) {
	rt := w.l.rt
	simple := func(f func(context.Context) error, after func(*pod.State)) func(context.Context) (func(*pod.State), error) {
		return func(ctx context.Context) (func(*pod.State), error) {
			if err := f(ctx); err != nil {
				return nil, err
			}
			return after, nil
		}
	}
	switch step.Op {
	case pod.Prepare:
		return w.prepare()
	case pod.CreateSandbox:
		return w.createSandbox(step)
	case pod.Start:
		return w.startContainer(step)
	case pod.PreStop:
		return w.preStop(step)
	case pod.Cleanup:
		return simple(w.cleanup, func(s *pod.State) { s.Clean, s.Prepared = true, false })
	case pod.Delete:
		p := w.st.Pod
		return simple(func(ctx context.Context) error { return w.deletePod(ctx, p) }, func(s *pod.State) { s.Deleted = true })
	case pod.StopSandbox:
		return simple(func(ctx context.Context) error { return rt.StopSandbox(ctx, step.ID) }, func(*pod.State) { w.stopped[step.ID] = true })
	case pod.RemoveSandbox:
		return simple(func(ctx context.Context) error { return rt.RemoveSandbox(ctx, step.ID) }, nil)
	case pod.Stop:
		return simple(func(ctx context.Context) error { return rt.StopContainer(ctx, step.ID, step.Grace) }, nil)
	case pod.Remove:
		return w.remove(step)
	}
	return simple(func(context.Context) error { return fmt.Errorf("unknown step %q", step.Op) }, nil)
}

// prepare runs the hooks that make ready what the containers share.
func (w *worker) prepare() func(context.Context) (func(*pod.State), error) {
	p := w.snapshot()
	w.st.Stale = false // what changes from now on is for the next time
	return func(ctx context.Context) (func(*pod.State), error) {
		box := &kubelet.Sandbox{Pod: p, Config: sandboxConfig(p, w.l.LogDir)}
		if err := os.MkdirAll(box.Config.LogDirectory, 0o755); err != nil {
			return nil, fmt.Errorf("make log directory: %w", err)
		}
		for _, h := range w.l.hooks {
			if h.Prepare == nil {
				continue
			}
			if err := h.Prepare(ctx, box); err != nil {
				return nil, fmt.Errorf("%s: %w", h.Name, err)
			}
		}
		return func(s *pod.State) {
			w.box = box
			s.Prepared, s.Clean = true, false
		}, nil
	}
}

func (w *worker) createSandbox(step pod.Step) func(context.Context) (func(*pod.State), error) {
	box := w.box
	if step.Attempt > 0 {
		w.l.Tell(w.st.Pod, "", corev1.EventTypeNormal, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
	}
	return func(ctx context.Context) (func(*pod.State), error) {
		box.Config.Metadata.Attempt = step.Attempt
		if _, err := w.l.rt.RunSandbox(ctx, box.Config, box.Handler); err != nil {
			return nil, &kubelet.Failure{Reason: "FailedCreatePodSandBox", Message: "Failed to create pod sandbox: " + err.Error(), Err: err}
		}
		return nil, nil
	}
}

// preStop gives a container its chance to prepare for the end.
func (w *worker) preStop(step pod.Step) func(context.Context) (func(*pod.State), error) {
	spec, target := specOf(w.st.Pod, step.Container)
	c := &kubelet.Container{Pod: w.snapshot(), Spec: spec, Target: target, Sandbox: w.box, ID: step.ID}
	return func(ctx context.Context) (func(*pod.State), error) {
		ctx, cancel := context.WithTimeout(ctx, step.Grace)
		defer cancel()
		for _, h := range w.l.hooks {
			if h.BeforeKill == nil {
				continue
			}
			// The container ends either way.
			if err := h.BeforeKill(ctx, c); err != nil {
				slog.InfoContext(ctx, "pre-stop", "obj", "Pod/"+w.name, "container", step.Container, "err", err)
			}
		}
		return func(s *pod.State) {
			k := s.Killing[step.ID]
			k.Told = true
			s.Killing[step.ID] = k
		}, nil
	}
}

// cleanup runs the hooks' cleanups, the last hook first.
func (w *worker) cleanup(ctx context.Context) error {
	var all error
	for _, h := range slices.Backward(w.l.hooks) {
		if h.Cleanup != nil {
			if err := h.Cleanup(ctx, w.uid); err != nil {
				all = errors.Join(all, fmt.Errorf("%s: %w", h.Name, err))
			}
		}
	}
	return all
}

// deletePod tells the API that nothing of the pod is left here.
func (w *worker) deletePod(ctx context.Context, p *corev1.Pod) error {
	err := w.l.client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{
		GracePeriodSeconds: new(int64(0)), Preconditions: &metav1.Preconditions{UID: &p.UID},
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // the watch will tell
	}
	return err
}

// remove removes a container that nobody asks about any more, and its log.
func (w *worker) remove(step pod.Step) func(context.Context) (func(*pod.State), error) {
	return func(ctx context.Context) (func(*pod.State), error) {
		st, err := w.l.rt.ContainerStatus(ctx, step.ID)
		if err == nil && step.Why != pod.Reset { // as upstream: a reset keeps the logs
			removeLog(st.GetLogPath())
		}
		return nil, w.l.rt.RemoveContainer(ctx, step.ID)
	}
}

// clear removes the last traces of a pod that is no more.
func (w *worker) clear() {
	logs := logDir(w.l.LogDir, w.st.Pod)
	removeLinks(w.l.LinkDir, logs)
	for _, dir := range []string{logs, podDir(w.l.Root, w.uid)} {
		if err := removeDir(dir); err != nil {
			slog.Warn("remove a pod's directory", "obj", "Pod/"+w.name, "err", err)
		}
	}
}
