package cri

import (
	"context"
	"fmt"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Containers are the containers in sandboxes. To stop or remove one that is
// not there is no error.
type Containers interface {
	CreateContainer(ctx context.Context, sandbox string, config *runtimeapi.ContainerConfig, box *runtimeapi.PodSandboxConfig) (id string, err error)
	StartContainer(ctx context.Context, id string) error
	// StopContainer returns when the container has ended, killed if need be.
	StopContainer(ctx context.Context, id string, grace time.Duration) error
	RemoveContainer(ctx context.Context, id string) error
	// ListContainers has those of one pod, of all pods where uid is empty.
	ListContainers(ctx context.Context, uid string) ([]*runtimeapi.Container, error)
	ContainerStatus(ctx context.Context, id string) (*runtimeapi.ContainerStatus, error)
	UpdateContainer(ctx context.Context, id string, r *runtimeapi.LinuxContainerResources) error
	// Exec runs a command in a container to its end. Zero is no time limit; a
	// command that exceeds it ends with an error that is context.DeadlineExceeded.
	Exec(ctx context.Context, id string, command []string, limit time.Duration) (output []byte, code int32, err error)
}

// CreateContainer implements Containers.
func (c *Client) CreateContainer(ctx context.Context, sandbox string, config *runtimeapi.ContainerConfig, box *runtimeapi.PodSandboxConfig) (string, error) {
	r, err := call(ctx, patience, c.Runtime.CreateContainer, &runtimeapi.CreateContainerRequest{PodSandboxId: sandbox, Config: config, SandboxConfig: box})
	return r.GetContainerId(), plain(err)
}

// StartContainer implements Containers.
func (c *Client) StartContainer(ctx context.Context, id string) error {
	_, err := call(ctx, patience, c.Runtime.StartContainer, &runtimeapi.StartContainerRequest{ContainerId: id})
	return plain(err)
}

// StopContainer implements Containers.
func (c *Client) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	_, err := call(ctx, grace+patience, c.Runtime.StopContainer, &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: int64(grace / time.Second)})
	return gone(err)
}

// RemoveContainer implements Containers.
func (c *Client) RemoveContainer(ctx context.Context, id string) error {
	_, err := call(ctx, patience, c.Runtime.RemoveContainer, &runtimeapi.RemoveContainerRequest{ContainerId: id})
	return gone(err)
}

// ListContainers implements Containers.
func (c *Client) ListContainers(ctx context.Context, uid string) ([]*runtimeapi.Container, error) {
	req := &runtimeapi.ListContainersRequest{}
	if uid != "" {
		req.Filter = &runtimeapi.ContainerFilter{LabelSelector: map[string]string{UIDLabel: uid}}
	}
	r, err := call(ctx, patience, c.Runtime.ListContainers, req)
	return r.GetContainers(), err
}

// ContainerStatus implements Containers.
func (c *Client) ContainerStatus(ctx context.Context, id string) (*runtimeapi.ContainerStatus, error) {
	r, err := call(ctx, patience, c.Runtime.ContainerStatus, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	return r.GetStatus(), err
}

// UpdateContainer implements Containers.
func (c *Client) UpdateContainer(ctx context.Context, id string, r *runtimeapi.LinuxContainerResources) error {
	_, err := call(ctx, patience, c.Runtime.UpdateContainerResources, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: r})
	return err
}

// forever stands for no limit: the caller's context ends the call.
const forever = 365 * 24 * time.Hour

// Exec implements Containers.
func (c *Client) Exec(ctx context.Context, id string, command []string, limit time.Duration) ([]byte, int32, error) {
	whole := forever
	if limit > 0 {
		whole = limit + patience // the runtime keeps the limit; this is for one that does not
	}
	r, err := call(ctx, whole, c.Runtime.ExecSync, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: command, Timeout: int64(limit / time.Second)})
	if err != nil {
		return nil, 0, fmt.Errorf("exec: %w", err)
	}
	return append(r.GetStdout(), r.GetStderr()...), r.GetExitCode(), nil
}
