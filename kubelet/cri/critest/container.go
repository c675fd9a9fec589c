package critest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-dev/knarr/kubelet/cri"
)

// CreateContainer implements cri.Containers.
func (r *Runtime) CreateContainer(_ context.Context, sandbox string, config *runtimeapi.ContainerConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	if err := r.enter("CreateContainer", config.Metadata.Name); err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	box, im := r.boxes[sandbox], r.find(config.Image.Image)
	switch {
	case box == nil || box.State != runtimeapi.PodSandboxState_SANDBOX_READY:
		return "", fmt.Errorf("sandbox %s is not running", sandbox)
	case im == nil:
		return "", fmt.Errorf("image %q not found", config.Image.Image)
	}
	for _, other := range r.containers {
		if other.box == sandbox && other.config.Metadata.Name == config.Metadata.Name && other.config.Metadata.Attempt == config.Metadata.Attempt {
			return "", fmt.Errorf("the name of %s is reserved", config.Metadata.Name)
		}
	}
	id := r.id(config.Metadata.Name)
	r.containers[id] = &container{
		box: sandbox, config: config, files: map[string]bool{}, signal: make(chan bool, 2), done: make(chan struct{}),
		status: &runtimeapi.ContainerStatus{
			Id: id, Metadata: config.Metadata, State: runtimeapi.ContainerState_CONTAINER_CREATED, CreatedAt: time.Now().UnixNano(),
			Image: &runtimeapi.ImageSpec{Image: im.RepoTags[0]}, ImageRef: im.Id, ImageId: im.Id, Labels: config.Labels, Annotations: config.Annotations, Mounts: config.Mounts,
			Resources: &runtimeapi.ContainerResources{Linux: config.GetLinux().GetResources()},
		},
	}
	r.tell(box.Metadata.Uid)
	return id, nil
}

// StartContainer implements cri.Containers.
func (r *Runtime) StartContainer(_ context.Context, id string) error {
	r.mu.Lock()
	c := r.containers[id]
	r.mu.Unlock()
	if c == nil {
		return cri.ErrNotFound
	}
	if err := r.enter("StartContainer", c.config.Metadata.Name); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.status.State != runtimeapi.ContainerState_CONTAINER_CREATED {
		return fmt.Errorf("container %s is not created but %v", id, c.status.State)
	}
	c.status.State, c.status.StartedAt = runtimeapi.ContainerState_CONTAINER_RUNNING, time.Now().UnixNano()
	r.tell(c.config.Labels[cri.UIDLabel])
	go r.live(c)
	return nil
}

// live runs a container's script to its end.
func (r *Runtime) live(c *container) {
	code := r.script(c, slices.Concat(c.config.Command, c.config.Args), c.signal)
	r.mu.Lock()
	defer r.mu.Unlock()
	c.status.State, c.status.FinishedAt, c.status.ExitCode = runtimeapi.ContainerState_CONTAINER_EXITED, time.Now().UnixNano(), code
	c.status.Reason = "Completed"
	if code != 0 {
		c.status.Reason = "Error"
	}
	close(c.done)
	r.tell(c.config.Labels[cri.UIDLabel])
}

// kill ends what runs of the container.
func (c *container) kill() {
	if c.status.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
		select {
		case c.signal <- true:
		default:
		}
	}
}

// StopContainer implements cri.Containers.
func (r *Runtime) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	if err := r.enter("StopContainer", id); err != nil {
		return err
	}
	r.mu.Lock()
	c := r.containers[id]
	if c == nil || c.status.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		r.mu.Unlock()
		return nil
	}
	select {
	case c.signal <- false:
	default:
	}
	r.mu.Unlock()
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(grace):
	}
	r.mu.Lock()
	c.kill()
	r.mu.Unlock()
	<-c.done
	return nil
}

// RemoveContainer implements cri.Containers.
func (r *Runtime) RemoveContainer(_ context.Context, id string) error {
	if err := r.enter("RemoveContainer", id); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.containers[id]; c != nil {
		c.kill()
		delete(r.containers, id)
		r.tell(c.config.Labels[cri.UIDLabel])
	}
	return nil
}

// ListContainers implements cri.Containers.
func (r *Runtime) ListContainers(_ context.Context, uid string) ([]*runtimeapi.Container, error) {
	if err := r.enter("ListContainers", uid); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*runtimeapi.Container
	for _, id := range slices.Sorted(maps.Keys(r.containers)) {
		if c := r.containers[id]; uid == "" || c.config.Labels[cri.UIDLabel] == uid {
			list = append(list, &runtimeapi.Container{
				Id: id, PodSandboxId: c.box, Metadata: c.status.Metadata, Image: c.status.Image, ImageRef: c.status.ImageRef,
				State: c.status.State, CreatedAt: c.status.CreatedAt, Labels: c.status.Labels, Annotations: c.status.Annotations,
			})
		}
	}
	return list, nil
}

// ContainerStatus implements cri.Containers.
func (r *Runtime) ContainerStatus(_ context.Context, id string) (*runtimeapi.ContainerStatus, error) {
	if err := r.enter("ContainerStatus", id); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return nil, cri.ErrNotFound
	}
	s := c.status
	return &runtimeapi.ContainerStatus{
		Id: s.Id, Metadata: s.Metadata, State: s.State, CreatedAt: s.CreatedAt, StartedAt: s.StartedAt, FinishedAt: s.FinishedAt,
		ExitCode: s.ExitCode, Reason: s.Reason, Message: s.Message, Image: s.Image, ImageRef: s.ImageRef, ImageId: s.ImageId,
		Labels: s.Labels, Annotations: s.Annotations, Mounts: s.Mounts, Resources: s.Resources,
	}, nil
}

// UpdateContainer implements cri.Containers.
func (r *Runtime) UpdateContainer(_ context.Context, id string, res *runtimeapi.LinuxContainerResources) error {
	if err := r.enter("UpdateContainer", id); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return cri.ErrNotFound
	}
	c.status.Resources = &runtimeapi.ContainerResources{Linux: res}
	return nil
}

// Exec implements cri.Containers: the command is a script too.
func (r *Runtime) Exec(ctx context.Context, id string, command []string, limit time.Duration) ([]byte, int32, error) {
	if err := r.enter("Exec", id); err != nil {
		return nil, 0, err
	}
	r.mu.Lock()
	c := r.containers[id]
	r.mu.Unlock()
	if c == nil || c.status.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return nil, 0, fmt.Errorf("exec: container %s does not run", id)
	}
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	signal, done := make(chan bool, 1), make(chan int32, 1)
	go func() { done <- r.script(c, command, signal) }()
	select {
	case code := <-done:
		return nil, code, nil
	case <-ctx.Done():
		signal <- true
		return nil, 0, fmt.Errorf("exec: %w", ctx.Err())
	}
}
