package connect_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/registry/assembly"
	"github.com/knarr-dev/knarr/registry/connect"
	"github.com/knarr-dev/knarr/registry/registrytest"
)

func (c *cluster) logs(pod string, opts *corev1.PodLogOptions) string {
	log, err := c.CoreV1().Pods("default").GetLogs(pod, opts).Stream(c.t.Context())
	if err != nil {
		return message(err)
	}
	b, err := io.ReadAll(log)
	if err := errors.Join(err, log.Close()); err != nil {
		return err.Error()
	}
	return string(b)
}

// contract: SR-7
func TestLog(t *testing.T) {
	c := start(t)
	c.kubelet.logs = func(w http.ResponseWriter, r *http.Request) {
		if text := r.URL.Query().Get("limitBytes"); text != "" {
			code := map[string]int{"400": 400, "404": 404, "500": 500, "503": 503}[text]
			http.Error(w, "it says why", code)
			return
		}
		fmt.Fprint(w, r.URL)
	}
	c.pod("one", nil, "a")
	c.pod("two", func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{{Name: "first", Image: "i"}}
	}, "a", "b")
	c.pod("waiting", func(p *corev1.Pod) { p.Spec.NodeName = "" }, "a")
	c.pod("lost", func(p *corev1.Pod) { p.Spec.NodeName = "missing" }, "a")
	free, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	down := free.Addr().(*net.TCPAddr).Port
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	c.node("down", down)
	c.pod("unreachable", func(p *corev1.Pod) { p.Spec.NodeName = "down" }, "a")
	since := metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	for _, x := range []struct {
		pod  string
		opts corev1.PodLogOptions
		want string
	}{
		{"one", corev1.PodLogOptions{}, "/containerLogs/default/one/a"},
		{
			"one",
			corev1.PodLogOptions{Follow: true, Previous: true, Timestamps: true, SinceSeconds: new(int64(3)), TailLines: new(int64(0))},
			"/containerLogs/default/one/a?follow=true&previous=true&sinceSeconds=3&tailLines=0&timestamps=true",
		},
		{"one", corev1.PodLogOptions{SinceTime: &since, Stream: new("Stdout")}, "/containerLogs/default/one/a?sinceTime=2026-01-02T03%3A04%3A05Z&stream=Stdout"},
		{"two", corev1.PodLogOptions{Container: "b"}, "/containerLogs/default/two/b"},
		{"two", corev1.PodLogOptions{Container: "first"}, "/containerLogs/default/two/first"},
		{"two", corev1.PodLogOptions{}, "400 BadRequest: a container name must be specified for pod two, choose one of: [first a b]"},
		{"two", corev1.PodLogOptions{Container: "x"}, "400 BadRequest: container x is not valid for pod two"},
		{"waiting", corev1.PodLogOptions{}, ""},
		{"none", corev1.PodLogOptions{}, `404 NotFound: pods "none" not found`},
		{"lost", corev1.PodLogOptions{}, `404 NotFound: pods "missing" not found`},
		{
			"unreachable",
			corev1.PodLogOptions{},
			fmt.Sprintf(`500 : Get "https://127.0.0.1:%d/containerLogs/default/unreachable/a": dial tcp 127.0.0.1:%d: connect: connection refused`, down, down),
		},
		{"one", corev1.PodLogOptions{LimitBytes: new(int64(400))}, "400 BadRequest: it says why"},
		{"one", corev1.PodLogOptions{LimitBytes: new(int64(404))}, "404 NotFound: the server could not find the requested resource ( pods/log one)"},
		{"one", corev1.PodLogOptions{LimitBytes: new(int64(500))}, "500 InternalError: Internal error occurred: it says why"},
		{"one", corev1.PodLogOptions{LimitBytes: new(int64(503))}, "503 ServiceUnavailable: the server is currently unable to handle the request ( pods/log one)"},
		{
			"one",
			corev1.PodLogOptions{TailLines: new(int64(-1)), LimitBytes: new(int64(0)), SinceSeconds: new(int64(0))},
			`422 Invalid: PodLogOptions "one" is invalid: [tailLines: Invalid value: -1: must be greater than or equal to 0, ` +
				`limitBytes: Invalid value: 0: must be greater than 0, sinceSeconds: Invalid value: 0: must be greater than 0]`,
		},
		{
			"one",
			corev1.PodLogOptions{SinceTime: &since, SinceSeconds: new(int64(3))},
			"422 Invalid: PodLogOptions \"one\" is invalid: []: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
		},
		{
			"one",
			corev1.PodLogOptions{Stream: new("x")},
			`422 Invalid: PodLogOptions "one" is invalid: stream: Unsupported value: "x": supported values: "All", "Stderr", "Stdout"`,
		},
		{
			"one",
			corev1.PodLogOptions{Stream: new("Stderr"), TailLines: new(int64(3))},
			"422 Invalid: PodLogOptions \"one\" is invalid: []: Forbidden: `tailLines` and specific `stream` are mutually exclusive for now",
		},
	} {
		if got := c.logs(x.pod, &x.opts); got != x.want {
			t.Errorf("log of %s with %+v:\n got %s\nwant %s", x.pod, x.opts, got, x.want)
		}
	}
	got := c.get("/api/v1/namespaces/default/pods/one/log?tailLines=x")
	if want := `400 BadRequest: strconv.ParseInt: parsing "x": invalid syntax`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := c.get("/api/v1/namespaces/default/pods/one/log/more"); !strings.HasPrefix(got, "404") {
		t.Errorf("got %s", got)
	}
}

// get is what a path has, or the error.
func (c *cluster) get(path string) string {
	body, err := c.CoreV1().RESTClient().Get().RequestURI(path).Stream(c.t.Context())
	if err != nil {
		return message(err)
	}
	b, err := io.ReadAll(body)
	if err := errors.Join(err, body.Close()); err != nil {
		return err.Error()
	}
	return string(b)
}

// What is logged is seen while the log goes on.
func TestFollow(t *testing.T) {
	c := start(t)
	c.pod("p", nil, "a")
	ended := make(chan error, 1)
	c.kubelet.logs = func(w http.ResponseWriter, r *http.Request) {
		out := http.NewResponseController(w)
		fmt.Fprintln(w, "first")
		if err := out.Flush(); err != nil {
			ended <- err
			return
		}
		<-r.Context().Done()
		ended <- nil
	}
	log, err := c.CoreV1().Pods("default").GetLogs("p", &corev1.PodLogOptions{Follow: true}).Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(log).ReadString('\n'); line != "first\n" || err != nil {
		t.Errorf("%q %v", line, err)
	}
	if err := log.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil { // the kubelet learns that the client has gone
		t.Error(err)
	}
}

// A log that breaks off does not look as if it were whole.
func TestBroken(t *testing.T) {
	c := start(t)
	c.pod("p", nil, "a")
	c.kubelet.logs = func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "half of")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	log, err := c.CoreV1().Pods("default").GetLogs("p", &corev1.PodLogOptions{}).Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	if b, err := io.ReadAll(log); err == nil {
		t.Errorf("%q is taken for whole", b)
	}
}

// socket connects to a path by a WebSocket of a browser.
func (c *cluster) socket(path string, protocols ...string) (*websocket.Conn, error) {
	d := websocket.Dialer{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Subprotocols: protocols}
	header := http.Header{"Authorization": {"Bearer " + c.config.BearerToken}, "Origin": {"http://localhost"}}
	conn, resp, err := d.DialContext(c.t.Context(), strings.Replace(c.URL, "https", "wss", 1)+path, header)
	if err != nil && resp != nil {
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		return nil, errors.Join(fmt.Errorf("%d %s", resp.StatusCode, body), err)
	}
	return conn, err
}

func TestLogBySocket(t *testing.T) {
	c := start(t)
	c.pod("p", nil, "a")
	c.kubelet.logs = func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "some text") }
	for protocol, want := range map[string]string{"binary.k8s.io": "some text", "base64.binary.k8s.io": "c29tZSB0ZXh0"} {
		conn, err := c.socket("/api/v1/namespaces/default/pods/p/log?container=a", protocol)
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for {
			_, b, err := conn.ReadMessage()
			if err != nil {
				break
			}
			got.Write(b)
		}
		if got.String() != want {
			t.Errorf("%s: %q", protocol, got.String())
		}
		_ = conn.Close() // the server has, before
	}
}

// A kubelet is not believed to be one unless its certificate says so, and then
// only where the client does not care.
func TestVerify(t *testing.T) {
	c := start(t, registrytest.With(func(cfg *assembly.Config) {
		cfg.Kubelets = connect.Kubelets{TLS: &tls.Config{MinVersion: tls.VersionTLS12}, Addresses: []corev1.NodeAddressType{"InternalIP"}}
	}))
	c.kubelet.logs = func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "some text") }
	c.pod("p", nil, "a")
	if got := c.logs("p", &corev1.PodLogOptions{}); !strings.Contains(got, "tls: failed to verify certificate: x509") {
		t.Errorf("got %s", got)
	}
	if got := c.logs("p", &corev1.PodLogOptions{InsecureSkipTLSVerifyBackend: true}); got != "some text" {
		t.Errorf("got %s", got)
	}
	_, _, err := c.run(executors["spdy"], c.subresource("p", "exec", &corev1.PodExecOptions{Stdout: true, Command: []string{"both"}}), streamOut())
	if err == nil || !strings.Contains(err.Error(), "error dialing backend: tls: failed to verify certificate: x509") {
		t.Errorf("got %v", err)
	}
}

// Kubelets see the server's certificate, with logs as with streams, and
// nobody else does.
func TestCertificate(t *testing.T) {
	var mine *tls.Certificate
	show := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return mine, nil }
	c := start(t, registrytest.With(func(cfg *assembly.Config) {
		cfg.Kubelets = connect.Kubelets{TLS: &tls.Config{InsecureSkipVerify: true, GetClientCertificate: show}}
	}))
	mine = &c.kubelet.TLS.Certificates[0] // any will do
	seen := make(chan int, 1)
	c.kubelet.peers = func(n int) { seen <- n }
	c.kubelet.logs = func(http.ResponseWriter, *http.Request) {}
	c.pod("p", nil, "a")
	c.logs("p", &corev1.PodLogOptions{InsecureSkipTLSVerifyBackend: true})
	if n := <-seen; n != 1 {
		t.Errorf("log: %d certificates", n)
	}
	at := c.subresource("p", "exec", &corev1.PodExecOptions{Stdout: true, Stderr: true, Command: []string{"both"}})
	for name, e := range executors {
		if _, _, err := c.run(e, at, streamOut()); err != nil {
			t.Error(err)
		}
		if n := <-seen; n != 1 {
			t.Errorf("exec by %s: %d certificates", name, n)
		}
	}
	c.get("/api/v1/nodes/n/proxy/x")
	if n := <-seen; n != 1 {
		t.Errorf("node: %d certificates", n)
	}
	ip, port := backend(t, true)
	c.served("served", ip, port)
	if got := c.get("/api/v1/namespaces/default/pods/https:served:/proxy/peers"); got != "0" {
		t.Errorf("a pod: %s certificates", got)
	}
}
