package cri

import (
	"context"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// UIDLabel is the label by which the sandboxes and containers of one pod are
// found, the same as upstream's.
const UIDLabel = "io.kubernetes.pod.uid"

// Sandboxes are the sandboxes of pods. To stop or remove one that is not there
// is no error.
type Sandboxes interface {
	RunSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (id string, err error)
	StopSandbox(ctx context.Context, id string) error
	// RemoveSandbox removes its containers too.
	RemoveSandbox(ctx context.Context, id string) error
	// ListSandboxes has those of one pod, of all pods where uid is empty.
	ListSandboxes(ctx context.Context, uid string) ([]*runtimeapi.PodSandbox, error)
	SandboxStatus(ctx context.Context, id string) (*runtimeapi.PodSandboxStatus, error)
}

// RunSandbox implements Sandboxes.
func (c *Client) RunSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	r, err := call(ctx, long, c.Runtime.RunPodSandbox, &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	return r.GetPodSandboxId(), err
}

// StopSandbox implements Sandboxes.
func (c *Client) StopSandbox(ctx context.Context, id string) error {
	_, err := call(ctx, long, c.Runtime.StopPodSandbox, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
	return gone(err)
}

// RemoveSandbox implements Sandboxes.
func (c *Client) RemoveSandbox(ctx context.Context, id string) error {
	_, err := call(ctx, long, c.Runtime.RemovePodSandbox, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id})
	return gone(err)
}

// ListSandboxes implements Sandboxes.
func (c *Client) ListSandboxes(ctx context.Context, uid string) ([]*runtimeapi.PodSandbox, error) {
	req := &runtimeapi.ListPodSandboxRequest{}
	if uid != "" {
		req.Filter = &runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{UIDLabel: uid}}
	}
	r, err := call(ctx, patience, c.Runtime.ListPodSandbox, req)
	return r.GetItems(), err
}

// SandboxStatus implements Sandboxes.
func (c *Client) SandboxStatus(ctx context.Context, id string) (*runtimeapi.PodSandboxStatus, error) {
	r, err := call(ctx, patience, c.Runtime.PodSandboxStatus, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
	return r.GetStatus(), err
}
