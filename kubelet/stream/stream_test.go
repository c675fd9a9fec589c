package stream

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// runtime is a runtime with one pod of one container, whose streams echo.
type runtime struct {
	url  string
	last fmt.Stringer // request
}

func (*runtime) ListContainers(_ context.Context, req *runtimeapi.ListContainersRequest, _ ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error) {
	f := req.Filter
	if f.LabelSelector[labelUID] != "u1" || f.LabelSelector[labelContainer] != "c" || f.State.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return &runtimeapi.ListContainersResponse{}, nil
	}
	return &runtimeapi.ListContainersResponse{Containers: []*runtimeapi.Container{{Id: "c1"}}}, nil
}

func (*runtime) ListPodSandbox(_ context.Context, req *runtimeapi.ListPodSandboxRequest, _ ...grpc.CallOption) (*runtimeapi.ListPodSandboxResponse, error) {
	f := req.Filter
	if f.LabelSelector[labelUID] != "u1" || f.State.State != runtimeapi.PodSandboxState_SANDBOX_READY {
		return &runtimeapi.ListPodSandboxResponse{}, nil
	}
	return &runtimeapi.ListPodSandboxResponse{Items: []*runtimeapi.PodSandbox{{Id: "s1"}}}, nil
}

func (r *runtime) Exec(_ context.Context, req *runtimeapi.ExecRequest, _ ...grpc.CallOption) (*runtimeapi.ExecResponse, error) {
	r.last = req
	return &runtimeapi.ExecResponse{Url: r.url + "/exec/token?a=b"}, nil
}

func (*runtime) Attach(context.Context, *runtimeapi.AttachRequest, ...grpc.CallOption) (*runtimeapi.AttachResponse, error) {
	return nil, status.Error(codes.NotFound, "container is gone")
}

func (r *runtime) PortForward(_ context.Context, req *runtimeapi.PortForwardRequest, _ ...grpc.CallOption) (*runtimeapi.PortForwardResponse, error) {
	r.last = req
	return &runtimeapi.PortForwardResponse{Url: r.url + "/portforward/token"}, nil
}

func (*runtime) ExecSync(_ context.Context, req *runtimeapi.ExecSyncRequest, _ ...grpc.CallOption) (*runtimeapi.ExecSyncResponse, error) {
	if req.Cmd[0] == "false" {
		return &runtimeapi.ExecSyncResponse{ExitCode: 1, Stderr: []byte("no")}, nil
	}
	return &runtimeapi.ExecSyncResponse{Stdout: fmt.Appendf(nil, "%s %v\n", req.ContainerId, req.Cmd), Stderr: []byte("stderr\n")}, nil
}

// echo switches protocols as it was asked to and sends back what it gets.
func echo(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/token") {
		http.NotFound(w, r)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\nX-Stream-Protocol-Version: v4\r\nX-Query: %s\r\n\r\n", r.Header.Get("Upgrade"), r.URL.RawQuery)
	if err := rw.Flush(); err == nil {
		_, _ = io.Copy(conn, conn) // until either end leaves
	}
}

// An answer is what a handler says to one request, and the connection after it.
type answer struct {
	code   int
	header http.Header
	body   string
	conn   net.Conn
	rd     *bufio.Reader
}

func ask(t *testing.T, handler http.HandlerFunc, upgrade string) answer {
	t.Helper()
	srv := httptest.NewServer(handler)
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); srv.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /exec/ns/p/c?command=ls HTTP/1.1\r\nHost: kubelet\r\n%sContent-Length: 0\r\n\r\n", upgrade)
	rd := bufio.NewReader(conn)
	resp, err := http.ReadResponse(rd, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body := []byte(nil)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		if body, err = io.ReadAll(resp.Body); err != nil {
			t.Fatal(err)
		}
	}
	return answer{resp.StatusCode, resp.Header, string(body), conn, rd}
}

const spdy = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"

func pod() *corev1.Pod {
	p := &corev1.Pod{}
	p.Name, p.Namespace, p.UID = "p", "ns", "u1"
	return p
}

// contract: LG-2
func TestBytesPassBothWays(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(echo))
	defer backend.Close()
	rt := &runtime{url: backend.URL}
	s := Streamer{Runtime: rt, Idle: time.Hour}
	for name, h := range map[string]http.HandlerFunc{
		"exec": func(w http.ResponseWriter, r *http.Request) {
			s.Exec(w, r, pod(), "c", &runtimeapi.ExecRequest{Cmd: []string{"ls"}, Stdout: true})
		},
		"port-forward": func(w http.ResponseWriter, r *http.Request) {
			s.PortForward(w, r, pod(), &runtimeapi.PortForwardRequest{Port: []int32{80}})
		},
	} {
		a := ask(t, h, spdy)
		if a.code != http.StatusSwitchingProtocols || a.header.Get("Upgrade") != "SPDY/3.1" || a.header.Get("X-Stream-Protocol-Version") != "v4" {
			t.Fatalf("%s: %v", name, a)
		}
		if q := a.header.Get("X-Query"); strings.Contains(q, "command") {
			t.Errorf("%s: the client's query %q reached the runtime", name, q)
		}
		for _, msg := range []string{"\x80\x03binary\x00", strings.Repeat("long ", 100000)} {
			go fmt.Fprint(a.conn, msg)
			got := make([]byte, len(msg))
			if _, err := io.ReadFull(a.rd, got); err != nil || string(got) != msg {
				t.Fatalf("%s: %d of %d bytes came back: %v", name, len(got), len(msg), err)
			}
		}
	}
	if req, ok := rt.last.(*runtimeapi.ExecRequest); ok && req.ContainerId != "c1" {
		t.Errorf("exec in %q", req.ContainerId)
	}
	if req, ok := rt.last.(*runtimeapi.PortForwardRequest); ok && req.PodSandboxId != "s1" {
		t.Errorf("forward to %q", req.PodSandboxId)
	}
}

func TestErrors(t *testing.T) {
	s := Streamer{Runtime: &runtime{url: "http://127.0.0.1:1"}}
	other := pod()
	other.UID = "u2"
	for _, c := range []struct {
		name, upgrade string
		handler       http.HandlerFunc
		code          int
		text          string
	}{
		{"no upgrade", "", func(w http.ResponseWriter, r *http.Request) { s.Exec(w, r, pod(), "c", &runtimeapi.ExecRequest{}) }, 400, "Upgrade request required"},
		{"no container", spdy, func(w http.ResponseWriter, r *http.Request) { s.Exec(w, r, pod(), "d", &runtimeapi.ExecRequest{}) }, 500, `container not found ("d")`},
		{"no sandbox", spdy, func(w http.ResponseWriter, r *http.Request) {
			s.PortForward(w, r, other, &runtimeapi.PortForwardRequest{})
		}, 500, `pod not found ("p_ns")`},
		{"gone", spdy, func(w http.ResponseWriter, r *http.Request) { s.Attach(w, r, pod(), "c", &runtimeapi.AttachRequest{}) }, 404, "container is gone"},
		{"runtime down", spdy, func(w http.ResponseWriter, r *http.Request) { s.Exec(w, r, pod(), "c", &runtimeapi.ExecRequest{}) }, 500, "connection refused"},
	} {
		if a := ask(t, c.handler, c.upgrade); a.code != c.code || !strings.Contains(a.body, c.text) {
			t.Errorf("%s: %d %s, want %d %s", c.name, a.code, a.body, c.code, c.text)
		}
	}
}

func TestIdleStreamIsCut(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(echo))
	defer backend.Close()
	s := Streamer{Runtime: &runtime{url: backend.URL}, Idle: 200 * time.Millisecond}
	a := ask(t, func(w http.ResponseWriter, r *http.Request) {
		s.Exec(w, r, pod(), "c", &runtimeapi.ExecRequest{})
	}, spdy)
	start := time.Now()
	for range 8 { // longer than idle in all, but never idle
		fmt.Fprint(a.conn, "x")
		if _, err := a.rd.ReadByte(); err != nil {
			t.Fatal("cut while busy: ", err)
		}
		<-time.After(50 * time.Millisecond)
	}
	if _, err := a.rd.ReadByte(); err == nil {
		t.Error("a byte from nowhere")
	}
	if d := time.Since(start); d < 400*time.Millisecond || d > 5*time.Second {
		t.Errorf("cut after %v", d)
	}
}

func TestRun(t *testing.T) {
	s := Streamer{Runtime: &runtime{}}
	got, err := s.Run(t.Context(), pod(), "c", []string{"ls", "/"})
	if err != nil || string(got) != "c1 [ls /]\nstderr\n" {
		t.Errorf("%q %v", got, err)
	}
	if _, err := s.Run(t.Context(), pod(), "c", []string{"false"}); err == nil || err.Error() != "command exited with 1: no" {
		t.Error(err)
	}
}
