// Package logs reads the files in which a CRI runtime keeps what containers
// print, and rotates them. It does not remove the logs of containers that are
// gone; who removes the container does.
package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A Runtime knows where the log of a container is and whether it still grows.
type Runtime interface {
	ContainerStatus(context.Context, *runtimeapi.ContainerStatusRequest, ...grpc.CallOption) (*runtimeapi.ContainerStatusResponse, error)
}

// A Reader reads container logs.
type Reader struct {
	Runtime Runtime
}

// Read copies to w what container of pod has printed, as opts chooses. With
// opts.Follow it returns when the container ends or ctx does; w is flushed
// before each wait if it has a Flush method. An error that comes before the
// first byte is for the client to read.
func (r *Reader) Read(ctx context.Context, pod *corev1.Pod, container string, opts *corev1.PodLogOptions, w io.Writer) error {
	id, err := instance(pod, container, opts.Previous)
	if err != nil {
		return err
	}
	resp, err := r.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if err != nil || resp.GetStatus().GetLogPath() == "" {
		return fmt.Errorf("unable to retrieve container logs for %s", id)
	}
	out := &output{w: w, stream: stream(opts), timestamps: opts.Timestamps, since: since(opts, time.Now()), left: opts.LimitBytes}
	f := follower{output: out, path: resp.GetStatus().GetLogPath(), tail: opts.TailLines}
	if opts.Follow {
		f.alive = func(ctx context.Context) bool { return r.alive(ctx, id) }
	}
	if err := f.run(ctx); err != nil && !errors.Is(err, errEnough) {
		return fmt.Errorf("read log of container %s: %w", id, err)
	}
	return nil
}

// alive reports whether the container may still print. A runtime that cannot
// be reached says nothing about its containers.
func (r *Reader) alive(ctx context.Context, id string) bool {
	resp, err := r.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		return status.Code(err) != codes.NotFound
	}
	return resp.GetStatus().GetState() != runtimeapi.ContainerState_CONTAINER_EXITED
}

// instance is the id of the instance of a container whose log is asked for.
func instance(pod *corev1.Pod, container string, previous bool) (string, error) {
	s := &pod.Status
	all := slices.Concat(s.ContainerStatuses, s.InitContainerStatuses, s.EphemeralContainerStatuses)
	i := slices.IndexFunc(all, func(c corev1.ContainerStatus) bool { return c.Name == container })
	if i < 0 {
		return "", fmt.Errorf("container %q in pod %q is not available", container, pod.Name)
	}
	now, last := all[i].State, all[i].LastTerminationState.Terminated
	ended := func(t *corev1.ContainerStateTerminated) bool { return t != nil && t.ContainerID != "" }
	id := ""
	switch {
	case previous && !ended(last):
		return "", fmt.Errorf("previous terminated container %q in pod %q not found", container, pod.Name)
	case previous:
		id = last.ContainerID
	case now.Running != nil:
		id = all[i].ContainerID
	case ended(now.Terminated):
		id = now.Terminated.ContainerID
	case ended(last):
		id = last.ContainerID
	case now.Terminated != nil || last != nil:
		return "", fmt.Errorf("container %q in pod %q is terminated", container, pod.Name)
	default:
		return "", fmt.Errorf("container %q in pod %q is waiting to start%s", container, pod.Name, why(now.Waiting))
	}
	_, id, _ = strings.Cut(id, "://")
	return id, nil
}

func why(w *corev1.ContainerStateWaiting) string {
	switch {
	case w == nil:
		return " - no logs yet"
	case w.Reason == "ErrImagePull":
		return ": image can't be pulled"
	case w.Reason == "ImagePullBackOff":
		return ": trying and failing to pull image"
	}
	return ": " + w.Reason
}

// stream is the one stream asked for, empty for both.
func stream(opts *corev1.PodLogOptions) string {
	if opts.Stream == nil || *opts.Stream == corev1.LogStreamAll {
		return ""
	}
	return strings.ToLower(*opts.Stream)
}

func since(opts *corev1.PodLogOptions, now time.Time) time.Time {
	switch {
	case opts.SinceSeconds != nil:
		return now.Add(-time.Duration(*opts.SinceSeconds) * time.Second)
	case opts.SinceTime != nil:
		return opts.SinceTime.Time
	}
	return time.Time{}
}
