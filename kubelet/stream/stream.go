// Package stream connects clients to commands, consoles and ports inside
// containers. The runtime serves the streams; this package asks it where and
// passes bytes, so SPDY and WebSocket are alike to it and it translates
// neither into the other.
package stream

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A Runtime prepares streams and runs commands.
type Runtime interface {
	ListContainers(context.Context, *runtimeapi.ListContainersRequest, ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error)
	ListPodSandbox(context.Context, *runtimeapi.ListPodSandboxRequest, ...grpc.CallOption) (*runtimeapi.ListPodSandboxResponse, error)
	Exec(context.Context, *runtimeapi.ExecRequest, ...grpc.CallOption) (*runtimeapi.ExecResponse, error)
	Attach(context.Context, *runtimeapi.AttachRequest, ...grpc.CallOption) (*runtimeapi.AttachResponse, error)
	PortForward(context.Context, *runtimeapi.PortForwardRequest, ...grpc.CallOption) (*runtimeapi.PortForwardResponse, error)
	ExecSync(context.Context, *runtimeapi.ExecSyncRequest, ...grpc.CallOption) (*runtimeapi.ExecSyncResponse, error)
}

// Labels by which the runtime finds what belongs to a pod.
const (
	labelUID       = "io.kubernetes.pod.uid"
	labelContainer = "io.kubernetes.container.name"
)

// A Streamer serves exec, attach and port-forward requests. A stream without
// a byte either way for Idle is cut; 0 for never.
type Streamer struct {
	Runtime Runtime
	Idle    time.Duration
}

// Exec runs req in a container of pod. The container's id is filled in.
func (s *Streamer) Exec(w http.ResponseWriter, r *http.Request, pod *corev1.Pod, container string, req *runtimeapi.ExecRequest) {
	s.serve(w, r, func(ctx context.Context) (string, error) {
		id, err := s.container(ctx, pod, container)
		if err != nil {
			return "", err
		}
		req.ContainerId = id
		resp, err := s.Runtime.Exec(ctx, req)
		return resp.GetUrl(), err
	})
}

// Attach connects to the main process of a container of pod. The container's
// id is filled in.
func (s *Streamer) Attach(w http.ResponseWriter, r *http.Request, pod *corev1.Pod, container string, req *runtimeapi.AttachRequest) {
	s.serve(w, r, func(ctx context.Context) (string, error) {
		id, err := s.container(ctx, pod, container)
		if err != nil {
			return "", err
		}
		req.ContainerId = id
		resp, err := s.Runtime.Attach(ctx, req)
		return resp.GetUrl(), err
	})
}

// PortForward connects to ports of pod. The sandbox's id is filled in.
func (s *Streamer) PortForward(w http.ResponseWriter, r *http.Request, pod *corev1.Pod, req *runtimeapi.PortForwardRequest) {
	s.serve(w, r, func(ctx context.Context) (string, error) {
		id, err := s.sandbox(ctx, pod)
		if err != nil {
			return "", err
		}
		req.PodSandboxId = id
		resp, err := s.Runtime.PortForward(ctx, req)
		return resp.GetUrl(), err
	})
}

// Run runs cmd in a container of pod to its end and returns what it printed.
func (s *Streamer) Run(ctx context.Context, pod *corev1.Pod, container string, cmd []string) ([]byte, error) {
	id, err := s.container(ctx, pod, container)
	if err != nil {
		return nil, err
	}
	resp, err := s.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: cmd})
	if err != nil {
		return nil, err
	}
	out := append(resp.Stdout, resp.Stderr...)
	if resp.ExitCode != 0 {
		return nil, fmt.Errorf("command exited with %d: %s", resp.ExitCode, out)
	}
	return out, nil
}

// container is the id of the running instance of a container.
func (s *Streamer) container(ctx context.Context, pod *corev1.Pod, name string) (string, error) {
	resp, err := s.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{
		State:         &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING},
		LabelSelector: map[string]string{labelUID: string(pod.UID), labelContainer: name},
	}})
	if err != nil {
		return "", err
	}
	if len(resp.Containers) == 0 {
		return "", fmt.Errorf("container not found (%q)", name)
	}
	return resp.Containers[0].Id, nil
}

func (s *Streamer) sandbox(ctx context.Context, pod *corev1.Pod) (string, error) {
	resp, err := s.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{
		State:         &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY},
		LabelSelector: map[string]string{labelUID: string(pod.UID)},
	}})
	if err != nil {
		return "", err
	}
	if len(resp.Items) == 0 {
		return "", fmt.Errorf("pod not found (%q)", pod.Name+"_"+pod.Namespace)
	}
	return resp.Items[0].Id, nil
}

// serve passes the request on to the address that the runtime names.
func (s *Streamer) serve(w http.ResponseWriter, r *http.Request, address func(context.Context) (string, error)) {
	if r.Header.Get("Upgrade") == "" {
		http.Error(w, "Upgrade request required", http.StatusBadRequest)
		return
	}
	where, err := address(r.Context())
	if err != nil {
		http.Error(w, err.Error(), httpCode(err))
		return
	}
	to, err := url.Parse(where)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	proxy := httputil.ReverseProxy{
		Rewrite:   func(pr *httputil.ProxyRequest) { pr.Out.URL, pr.Out.Host = to, to.Host },
		Transport: &http.Transport{DialContext: s.dial, DisableKeepAlives: true},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		},
	}
	proxy.ServeHTTP(w, r)
}

// httpCode tells a client what kind of failure an error of the runtime is.
func httpCode(err error) int {
	switch status.Code(err) {
	case codes.NotFound:
		return http.StatusNotFound
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	}
	return http.StatusInternalServerError
}

func (s *Streamer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, addr)
	if err != nil || s.Idle == 0 {
		return c, err
	}
	i := &idleConn{Conn: c, idle: s.Idle}
	return i, i.touch()
}

// An idleConn breaks when nothing passes through it for a while.
type idleConn struct {
	net.Conn

	idle time.Duration
}

func (c *idleConn) touch() error { return c.SetDeadline(time.Now().Add(c.idle)) }

func (c *idleConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && err == nil {
		err = c.touch()
	}
	return n, err
}

func (c *idleConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err == nil {
		err = c.touch()
	}
	return n, err
}
