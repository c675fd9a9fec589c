package connect_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
)

// subresource is the URL of a subresource of a pod.
func (c *cluster) subresource(pod, sub string, opts any) *url.URL {
	req := c.CoreV1().RESTClient().Post().Resource("pods").Namespace("default").Name(pod).SubResource(sub)
	switch o := opts.(type) {
	case *corev1.PodExecOptions:
		req.VersionedParams(o, scheme.ParameterCodec)
	case *corev1.PodAttachOptions:
		req.VersionedParams(o, scheme.ParameterCodec)
	}
	return req.URL()
}

type executor func(cfg *rest.Config, at *url.URL) (remotecommand.Executor, error)

// executors are the ways in which clients run commands.
var executors = map[string]executor{
	"spdy": func(cfg *rest.Config, at *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewSPDYExecutor(cfg, http.MethodPost, at)
	},
	"websocket": func(cfg *rest.Config, at *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutor(cfg, http.MethodGet, at.String())
	},
}

// run runs a command and tells what came of it.
func (c *cluster) run(e executor, at *url.URL, opts remotecommand.StreamOptions) (out, errs string, err error) {
	c.t.Helper()
	x, err := e(c.config, at)
	if err != nil {
		c.t.Fatal(err)
	}
	var o, s bytes.Buffer
	opts.Stdout = &o
	if !opts.Tty {
		opts.Stderr = &s
	}
	err = x.StreamWithContext(c.t.Context(), opts)
	return o.String(), s.String(), err
}

// sizes is a terminal with one size.
type sizes chan remotecommand.TerminalSize

// Next is part of remotecommand.TerminalSizeQueue.
func (s sizes) Next() *remotecommand.TerminalSize {
	size, ok := <-s
	if !ok {
		return nil
	}
	return &size
}

// contract: SR-8 SR-9
func TestExec(t *testing.T) {
	c := start(t)
	c.pod("p", nil, "c")
	for name, e := range executors {
		command := func(tty bool, cmd ...string) *url.URL {
			return c.subresource("p", "exec", &corev1.PodExecOptions{Stdin: true, Stdout: true, Stderr: !tty, TTY: tty, Command: cmd})
		}
		t.Run(name, func(t *testing.T) {
			long := strings.Repeat("0123456789", 100_000)
			out, _, err := c.run(e, command(false, "cat"), remotecommand.StreamOptions{Stdin: strings.NewReader(long)})
			if out != long || err != nil {
				t.Errorf("cat of %d bytes: %d bytes, %v", len(long), len(out), err)
			}
			out, errs, err := c.run(e, command(false, "both"), remotecommand.StreamOptions{Stdin: strings.NewReader("")})
			if out != "to out" || errs != "to err" || err != nil {
				t.Errorf("both: %q %q %v", out, errs, err)
			}
			_, _, err = c.run(e, command(false, "exit", "7"), remotecommand.StreamOptions{Stdin: strings.NewReader("")})
			var exited exec.CodeExitError
			if !errors.As(err, &exited) || exited.Code != 7 || err.Error() != "command terminated with exit code 7" {
				t.Errorf("exit 7: %#v", err)
			}
			_, _, err = c.run(e, command(false, "missing"), remotecommand.StreamOptions{Stdin: strings.NewReader("")})
			if err == nil || !strings.Contains(err.Error(), "error executing command in container: missing: no such command") {
				t.Errorf("missing: %v", err)
			}
			size := make(sizes, 1)
			size <- remotecommand.TerminalSize{Width: 80, Height: 25}
			out, _, err = c.run(e, command(true, "size"), remotecommand.StreamOptions{Stdin: strings.NewReader(""), Tty: true, TerminalSizeQueue: size})
			close(size)
			if out != "80x25" || err != nil {
				t.Errorf("size: %q %v", out, err)
			}
		})
	}
}

func TestAttach(t *testing.T) {
	c := start(t)
	c.pod("p", nil, "a", "b")
	for name, e := range executors {
		out, _, err := c.run(e, c.subresource("p", "attach", &corev1.PodAttachOptions{Container: "b", Stdout: true, Stderr: true}), remotecommand.StreamOptions{})
		if out != "attached to b in p" || err != nil {
			t.Errorf("%s: %q %v", name, out, err)
		}
	}
}

// A client that goes takes its process' streams with it.
func TestAbandoned(t *testing.T) {
	c := start(t)
	c.pod("p", nil, "c")
	for name, e := range executors {
		x, err := e(c.config, c.subresource("p", "exec", &corev1.PodExecOptions{Stdin: true, Stdout: true, Command: []string{"linger"}}))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		stdin, end := io.Pipe() // on which nothing comes
		err = x.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: stdin, Stdout: writer(cancel)})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
		<-c.kubelet.abandoned
		if err := end.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A writer calls itself when it is written to.
type writer func()

// Write is part of io.Writer.
func (w writer) Write(p []byte) (int, error) {
	if len(p) > 0 {
		w()
	}
	return len(p), nil
}

// streamOut is the options of a client that only listens.
func streamOut() remotecommand.StreamOptions { return remotecommand.StreamOptions{} }

// However soon it is over, it is known how a command has ended.
func TestExitCode(t *testing.T) {
	c := start(t)
	c.pod("p", nil, "c")
	at := c.subresource("p", "exec", &corev1.PodExecOptions{Stdin: true, Stdout: true, Stderr: true, Command: []string{"exit", "7"}})
	for name, e := range executors {
		for range 100 {
			_, _, err := c.run(e, at, remotecommand.StreamOptions{Stdin: strings.NewReader("")})
			var exited exec.CodeExitError
			if !errors.As(err, &exited) || exited.Code != 7 {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
}

// Sockets of old know no more than channels and are not closed one by one.
func TestExecBySocket(t *testing.T) {
	c := start(t)
	c.pod("p", nil, "c")
	for protocol, want := range map[string]string{
		"v4.channel.k8s.io": `1to out|2to err|3{"status":"Success"}`,
		"channel.k8s.io":    "1to out|2to err",
		"":                  "1to out|2to err",
	} {
		var protocols []string
		if protocol != "" {
			protocols = []string{protocol}
		}
		conn, err := c.socket("/api/v1/namespaces/default/pods/p/exec?stdout=1&stderr=1&command=both", protocols...)
		if err != nil {
			t.Fatalf("%s: %v", protocol, err)
		}
		var got []string
		for {
			_, b, err := conn.ReadMessage()
			if err != nil {
				break
			}
			if len(b) > 1 {
				got = append(got, strings.Replace(string(b), b0(b), string(rune('0'+b[0])), 1))
			}
		}
		if s := strings.Join(got, "|"); !strings.HasPrefix(s, want) {
			t.Errorf("%s: %q", protocol, s)
		}
		_ = conn.Close() // the server has, before
	}
}

func b0(b []byte) string { return string(b[:1]) }

func TestStreamErrors(t *testing.T) {
	c := start(t)
	c.pod("p", nil, "a", "b")
	c.pod("waiting", func(p *corev1.Pod) { p.Spec.NodeName = "" }, "a")
	c.node("down", 1)
	c.pod("unreachable", func(p *corev1.Pod) { p.Spec.NodeName = "down" }, "a")
	for _, x := range []struct{ pod, container, want string }{
		{"none", "", `404 pods "none" not found`},
		{"p", "", "400 a container name must be specified for pod p, choose one of: [a b]"},
		{"p", "x", "400 container x is not valid for pod p"},
		{"waiting", "", "400 pod waiting does not have a host assigned"},
		{"unreachable", "", "500 error dialing backend: dial tcp 127.0.0.1:1: connect: connection refused"},
	} {
		for _, sub := range []string{"exec", "attach", "portforward"} {
			if sub == "portforward" && x.pod == "p" {
				continue // which is about no container
			}
			_, err := c.socket("/api/v1/namespaces/default/pods/"+x.pod+"/"+sub+"?stdout=1&command=x&ports=1&container="+x.container, "v4.channel.k8s.io")
			if got := socketError(t, err); got != x.want {
				t.Errorf("%s of %s: got %s, want %s", sub, x.pod, got, x.want)
			}
		}
	}
	// What the kubelet says comes back as it is.
	if _, err := c.socket("/api/v1/namespaces/default/pods/p/exec?command=x&container=a", "v4.channel.k8s.io"); err == nil ||
		err.Error() != "400 you must specify at least 1 of stdin, stdout, stderr\n" {
		t.Errorf("got %v", err)
	}
	if got := c.get("/api/v1/namespaces/default/pods/p/exec?stdout=1&command=x&container=a"); got != "400 BadRequest: Upgrade request required" {
		t.Errorf("got %s", got)
	}
}

// socketError is the Status in the answer to a request for a socket.
func socketError(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	code, body, _ := strings.Cut(err.Error(), " ")
	var status metav1.Status
	if json.Unmarshal([]byte(body), &status) != nil {
		return err.Error()
	}
	return code + " " + status.Message
}
