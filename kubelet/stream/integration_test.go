//go:build integration

package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	spdytransport "k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-dev/knarr/kubelet/node/runtimetest"
)

// serve serves the streams of a pod as a kubelet would, and is their address.
func serve(t *testing.T, p *runtimetest.Pod) *url.URL {
	s := Streamer{Runtime: p.Runtime, Idle: time.Minute}
	mux := http.NewServeMux()
	mux.HandleFunc("/exec", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		s.Exec(w, r, p.Pod, "c", &runtimeapi.ExecRequest{Cmd: q["command"], Stdin: q.Has("stdin"), Stdout: true, Stderr: true})
	})
	mux.HandleFunc("/portForward", func(w http.ResponseWriter, r *http.Request) {
		s.PortForward(w, r, p.Pod, &runtimeapi.PortForwardRequest{})
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestRealExec runs commands over SPDY and over WebSocket.
func TestRealExec(t *testing.T) {
	at := serve(t, runtimetest.Start(t, "sleep 1000"))
	at.Path = "/exec"
	config := &rest.Config{Host: at.Host}
	for name, connect := range map[string]func(u *url.URL) (remotecommand.Executor, error){
		"spdy": func(u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewSPDYExecutor(config, "POST", u)
		},
		"websocket": func(u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutorForProtocols(config, "GET", u.String(), "v4.channel.k8s.io")
		},
	} {
		at.RawQuery = url.Values{"command": {"sh", "-c", "wc -c; echo bad >&2; exit 3"}, "stdin": {"1"}}.Encode()
		if name == "websocket" { // in which v4 cannot close its input
			at.RawQuery = url.Values{"command": {"sh", "-c", "head -c 100000 | wc -c; echo bad >&2; exit 3"}, "stdin": {"1"}}.Encode()
		}
		e, err := connect(at)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		var out, bad bytes.Buffer
		err = e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: strings.NewReader(strings.Repeat("x", 100000)), Stdout: &out, Stderr: &bad})
		cancel()
		var code exec.CodeExitError
		if !errors.As(err, &code) || code.Code != 3 || strings.TrimSpace(out.String()) != "100000" || bad.String() != "bad\n" {
			t.Errorf("%s: %v, printed %q and %q", name, err, &out, &bad)
		}
	}
}

func TestRealPortForward(t *testing.T) {
	at := serve(t, runtimetest.Start(t, "mkdir /w; echo hello > /w/index.html; exec busybox httpd -f -p 8080 -h /w"))
	at.Path = "/portForward"
	transport, upgrader, err := spdytransport.RoundTripperFor(&rest.Config{Host: at.Host})
	if err != nil {
		t.Fatal(err)
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	f, err := portforward.New(spdytransport.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", at), []string{"0:8080"}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- f.ForwardPorts() }()
	<-ready
	ports, err := f.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second) // for the container to listen
	for {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/index.html", ports[0].Local))
		if err == nil {
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if string(body) != "hello\n" {
				t.Errorf("got %q", body)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-time.After(50 * time.Millisecond)
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
