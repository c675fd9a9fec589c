package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/kubelet"
	"github.com/knarr-dev/knarr/kubelet/pod"
)

// startContainer makes a container, starts it, and sees it through its
// post-start hook.
func (w *worker) startContainer(step pod.Step) func(context.Context) (func(*pod.State), error) {
	p := w.snapshot()
	spec, target := specOf(p, step.Container)
	c := &kubelet.Container{Pod: p, Spec: spec, Target: target, Sandbox: w.box, Ending: w.dying}
	if target != "" {
		c.TargetID, _ = w.l.Pods.Container(p.Namespace, p.Name, p.UID, target)
	}
	sandbox := w.st.Sandboxes[0].ID
	fresh := len(w.st.Containers) == 0
	return func(ctx context.Context) (func(*pod.State), error) {
		if fresh {
			step.Attempt = max(step.Attempt, attemptByLogs(filepath.Join(w.box.Config.LogDirectory, spec.Name)))
		}
		c.Config = containerConfig(p, spec, step.Attempt)
		if err := w.create(ctx, c, sandbox); err != nil {
			return nil, err
		}
		// From here on the start counts, whatever comes of it.
		after := func(s *pod.State) {
			if step.Backoff.Delay > 0 {
				s.Backoff[step.Container] = step.Backoff
			}
		}
		w.tell(p, spec, corev1.EventTypeNormal, "Created", "Container created")
		if err := w.l.rt.StartContainer(ctx, c.ID); err != nil {
			// An id in it would make each event another one.
			return after, &kubelet.Failure{Reason: "RunContainerError", Message: strings.ReplaceAll(err.Error(), c.ID, spec.Name), Err: err}
		}
		w.tell(p, spec, corev1.EventTypeNormal, "Started", "Container started")
		w.link(c)
		for _, h := range w.l.hooks {
			if h.AfterStart == nil {
				continue
			}
			if err := h.AfterStart(ctx, c); err != nil {
				if _, ok := errors.AsType[*kubelet.Failure](err); !ok {
					err = &kubelet.Failure{Reason: "PostStartHookError", Message: err.Error(), Err: err}
				}
				return func(s *pod.State) {
					after(s)
					s.Killing[c.ID] = pod.Killing{Since: s.Now, Why: pod.PostStart}
				}, err
			}
		}
		return after, nil
	}
}

// create has the hooks fill in the configuration and the runtime make the
// container.
func (w *worker) create(ctx context.Context, c *kubelet.Container, sandbox string) error {
	if err := os.MkdirAll(filepath.Join(w.box.Config.LogDirectory, c.Spec.Name), 0o755); err != nil {
		return fmt.Errorf("make log directory: %w", err)
	}
	for _, h := range w.l.hooks {
		if h.BeforeStart == nil {
			continue
		}
		if err := h.BeforeStart(ctx, c); err != nil {
			return configError(err)
		}
	}
	if err := addMessageFile(w.l.Root, c); err != nil {
		return configError(err)
	}
	id, err := w.l.rt.CreateContainer(ctx, sandbox, c.Config, w.box.Config)
	if err != nil {
		return &kubelet.Failure{Reason: "CreateContainerError", Message: err.Error(), Err: err}
	}
	c.ID = id
	return nil
}

// configReason is why a container waits whose configuration cannot be made.
const configReason = "CreateContainerConfigError"

// configError gives an error the reason that it has where it has none.
func configError(err error) error {
	if _, ok := errors.AsType[*kubelet.Failure](err); ok {
		return err
	}
	return &kubelet.Failure{Reason: configReason, Message: err.Error(), Err: err}
}

// attemptByLogs is how often a container has been started already by the log
// files that its starts have left: a runtime may have forgotten them.
func attemptByLogs(dir string) uint32 {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	var next uint32
	for _, e := range entries {
		number, _, _ := strings.Cut(e.Name(), ".log")
		if n, err := strconv.ParseUint(number, 10, 32); err == nil {
			next = max(next, uint32(n)+1)
		}
	}
	return next
}

// link makes the link to a container's log by which log collectors find it.
func (w *worker) link(c *kubelet.Container) {
	if w.l.LinkDir == "" {
		return
	}
	log := filepath.Join(w.box.Config.LogDirectory, c.Config.LogPath)
	name := fmt.Sprintf("%s_%s_%s-%s", c.Pod.Name, c.Pod.Namespace, c.Spec.Name, c.ID)
	const limit = 255 - len(".log") // of a file name
	err := os.Symlink(log, filepath.Join(w.l.LinkDir, name[:min(len(name), limit)]+".log"))
	if err != nil && !os.IsExist(err) {
		slog.Warn("link log", "obj", "Pod/"+w.name, "err", err)
	}
}

// removeLinks removes the links to logs in a directory.
func removeLinks(links, logs string) {
	if links == "" {
		return
	}
	entries, err := os.ReadDir(links)
	if err != nil {
		return
	}
	for _, e := range entries {
		path := filepath.Join(links, e.Name())
		if to, err := os.Readlink(path); err == nil && strings.HasPrefix(to, logs+string(filepath.Separator)) {
			_ = os.Remove(path) // else the next pod of the name will try
		}
	}
}

// removeLog removes a log and what rotation has made of it.
func removeLog(path string) {
	if path == "" {
		return
	}
	old, _ := filepath.Glob(path + ".*") // the pattern is sound
	for _, f := range append(old, path) {
		_ = os.Remove(f) // the directory goes in the end
	}
}
