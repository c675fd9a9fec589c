package cri

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Watch implements Watcher.
func (c *Client) Watch(ctx context.Context, ready func(), see func(uid string)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		return fmt.Errorf("watch runtime: %w", err)
	}
	ready()
	for {
		e, err := stream.Recv()
		switch {
		case status.Code(err) == codes.Unimplemented:
			return ErrUnsupported
		case errors.Is(err, io.EOF):
			return fmt.Errorf("watch runtime: %w", io.ErrUnexpectedEOF)
		case err != nil:
			return fmt.Errorf("watch runtime: %w", err)
		}
		if uid := e.GetPodSandboxStatus().GetMetadata().GetUid(); uid != "" {
			see(uid)
		}
	}
}
