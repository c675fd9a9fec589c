// Package cri is the door to the container runtime: the calls of the container
// runtime interface that the kubelet makes, with names and errors of Go.
//
// It keeps nothing and decides nothing. Package critest has a runtime in
// memory that passes the same suite of tests.
package cri

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A Runtime runs pods: all that the kubelet's loop needs of one.
type Runtime interface {
	Sandboxes
	Containers
	Images
	Watcher
}

// A Watcher tells what happens in the runtime.
type Watcher interface {
	// Name is the runtime's name as container ids have it, such as containerd.
	Name(ctx context.Context) (string, error)
	// Watch calls ready once it is sure to miss nothing from then on, and see
	// with the uid of each pod that something happened to. It returns with an
	// error when it can tell no more; ErrUnsupported where it never can.
	Watch(ctx context.Context, ready func(), see func(uid string)) error
}

// The errors that callers tell apart.
var (
	ErrNotFound    = errors.New("not found")
	ErrUnsupported = errors.New("not supported by the runtime")
)

const (
	// maxMessage is upstream's limit; lists of many containers are large.
	maxMessage = 16 << 20
	// patience is for what the runtime does without waiting for others.
	patience = 2 * time.Minute
	// long is for what waits for the network: CNI plugins, with retries.
	long = 4 * time.Minute
)

// A Client calls a runtime at its socket. Runtime and Image are the bare
// stubs, for those who need what this package does not have.
type Client struct {
	Runtime runtimeapi.RuntimeServiceClient
	Image   runtimeapi.ImageServiceClient
	conn    *grpc.ClientConn
}

// Dial returns a client of the runtime that listens at endpoint, a path or a
// unix:// URL. It does not wait for the runtime: calls do.
func Dial(endpoint string) (*Client, error) {
	if !strings.Contains(endpoint, "://") {
		endpoint = "unix://" + endpoint
	}
	conn, err := grpc.NewClient(endpoint,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.WaitForReady(true)),
		grpc.WithIdleTimeout(0), // the event stream is always open
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, MaxDelay: 3 * time.Second}}),
	)
	if err != nil {
		return nil, fmt.Errorf("dial runtime: %w", err)
	}
	return &Client{runtimeapi.NewRuntimeServiceClient(conn), runtimeapi.NewImageServiceClient(conn), conn}, nil
}

// Close ends the client and all that goes on with it.
func (c *Client) Close() error { return c.conn.Close() }

// Name implements Watcher.
func (c *Client) Name(ctx context.Context) (string, error) {
	v, err := call(ctx, patience, c.Runtime.Version, &runtimeapi.VersionRequest{})
	return v.GetRuntimeName(), err
}

// call makes one call with a limit on its time. Its error is a *failure.
func call[Req, Resp any](ctx context.Context, limit time.Duration, f func(context.Context, Req, ...grpc.CallOption) (Resp, error), req Req) (Resp, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	resp, err := f(ctx, req)
	if err == nil {
		return resp, nil
	}
	var none Resp
	st, _ := status.FromError(err)
	return none, &failure{st}
}

// A failure is an error of the runtime. It reads as gRPC has it, by which
// people look for it.
type failure struct{ *status.Status }

func (f *failure) Error() string { return f.Err().Error() }

// Unwrap makes it one of the errors that callers tell apart, if it is.
func (f *failure) Unwrap() error {
	switch f.Code() {
	case codes.NotFound:
		return ErrNotFound
	case codes.Unimplemented:
		return ErrUnsupported
	case codes.Canceled:
		return context.Canceled
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// plain is err in the runtime's own words only, which is how Kubernetes tells
// of containers that cannot be made or started.
func plain(err error) error {
	var f *failure
	if !errors.As(err, &f) {
		return err
	}
	if kind := f.Unwrap(); kind != nil {
		return &worded{f.Message(), kind}
	}
	return errors.New(f.Message())
}

// worded is an error of a kind that says something else than the kind.
type worded struct {
	message string
	kind    error
}

func (w *worded) Error() string { return w.message }
func (w *worded) Unwrap() error { return w.kind }

// gone is err, but for what is not there to be ended any more.
func gone(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Conn is the connection to the runtime, for what it serves besides CRI.
func (c *Client) Conn() grpc.ClientConnInterface { return c.conn }
