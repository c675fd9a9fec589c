package server_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/knarr-dev/knarr/registry/registrytest"
)

// post sends a body to a server without TLS and returns the answer's code and
// body.
func post(t *testing.T, s *registrytest.Server, body []byte, headers ...string) (int, string) {
	return send(t, s, configMaps, body, headers...)
}

// send is post to another path.
func send(t *testing.T, s *registrytest.Server, path string, body []byte, headers ...string) (int, string) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://knarr"+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := s.As(registrytest.Admin).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // it is read
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// A body that is compressed is not what it says it is: nobody unpacks it.
func TestGzipBomb(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(make([]byte, 100<<20)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	s := registrytest.Run(t)
	code, text := post(t, s, b.Bytes(), "Content-Type", "application/json", "Content-Encoding", "gzip")
	if code != http.StatusBadRequest || !strings.Contains(text, "couldn't get version/kind; json parse error") {
		t.Errorf("%d: %.300s", code, text)
	}
}

func TestInvalidUTF8(t *testing.T) {
	s := registrytest.Run(t)
	for media, body := range map[string]string{
		"application/json":                    "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"a\"},\"data\":{\"k\":\"\xff\"}}",
		"application/yaml":                    "{apiVersion: v1, kind: ConfigMap, metadata: {name: b}, data: {k: \"\xff\"}}",
		"application/vnd.kubernetes.protobuf": "k8s\x00\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x10\x0a\x03\x0a\x01c\x12\x09\x0a\x01k\x12\x04\xff\xfe\xfd\xfc\x1a\x00\x22\x00",
	} {
		code, text := post(t, s, []byte(body), "Content-Type", media)
		if code >= http.StatusInternalServerError || strings.ContainsRune(text, 0) {
			t.Errorf("%s: %d: %q", media, code, text)
		}
	}
	// Whatever was taken can be read by everybody.
	for _, accept := range []string{"application/json", "application/yaml"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://knarr/api/v1/configmaps", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		resp, err := s.As(registrytest.Admin).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close() // it is read
		if err != nil || resp.StatusCode != http.StatusOK || bytes.ContainsRune(text, 0xff) {
			t.Errorf("list: %d, %v: %q", resp.StatusCode, err, text)
		}
	}
}

// dial connects to a server by TLS for one protocol.
func dial(t *testing.T, s *registrytest.Server, protocol string) net.Conn {
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}, MinVersion: tls.VersionTLS12}}
	conn, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.URL, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the server may have been faster
	return conn
}

// works fails the test where the server does not serve somebody else.
func works(t *testing.T, s *registrytest.Server, name string) {
	client, err := kubernetes.NewForConfig(s.Client(registrytest.Admin))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := client.CoreV1().ConfigMaps("default").Create(ctx, cm, metav1.CreateOptions{}); err != nil {
		t.Errorf("another client: %v", err)
	}
}

// Clients that do not come to the end of their headers are sent away.
func TestSlowHeaders(t *testing.T) {
	s := registrytest.Run(t, registrytest.TLS, registrytest.HeaderTime(100*time.Millisecond))
	var slow []net.Conn
	for range 50 {
		conn := dial(t, s, "http/1.1")
		if _, err := io.WriteString(conn, "GET /version HTTP/1.1\r\nHost: knarr\r\nX-Slow: "); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, conn)
	}
	works(t, s, "while")
	for _, conn := range slow {
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Errorf("not closed in order: %v", err)
		}
	}
	// What is served without the test's haste has bounds as well.
	if srv := s.Handler.HTTP(); srv.ReadHeaderTimeout <= 0 || srv.ReadHeaderTimeout > time.Minute || srv.IdleTimeout <= 0 || srv.MaxHeaderBytes <= 0 {
		t.Errorf("headers may take %v and %d bytes, idle connections stay %v", srv.ReadHeaderTimeout, srv.MaxHeaderBytes, srv.IdleTimeout)
	}
}

// watches is how many watches go on.
func watches(t *testing.T, s *registrytest.Server) (n int) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://knarr/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.As(registrytest.Admin).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // it is read
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "apiserver_longrunning_requests{") && strings.Contains(line, `verb="WATCH"`) {
			if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' '):], &n); err != nil {
				t.Fatal(err)
			}
		}
	}
	return n
}

// A watcher that stops reading is dropped, and keeps nobody from anything.
func TestWatcherThatDoesNotRead(t *testing.T) {
	s := registrytest.Run(t, registrytest.TLS)
	s.Handler.SlowWatch = 300 * time.Millisecond
	client, err := kubernetes.NewForConfig(s.Client(registrytest.Admin))
	if err != nil {
		t.Fatal(err)
	}
	other, err := client.CoreV1().ConfigMaps("default").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Stop()
	conn := dial(t, s, "http/1.1")
	if _, err := io.WriteString(conn, "GET /api/v1/namespaces/default/configmaps?watch=1 HTTP/1.1\r\nHost: knarr\r\nAuthorization: Bearer admin\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Fatalf("watch: %q, %v", line, err)
	}
	// More than the connection's buffers hold.
	big := strings.Repeat("x", 900<<10)
	const n = 40
	for i := range n {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("big-", i)}, Data: map[string]string{"k": big}}
		if _, err := client.CoreV1().ConfigMaps("default").Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for range n {
		<-other.ResultChan()
	}
	for end := time.After(30 * time.Second); watches(t, s) > 1; {
		select {
		case <-end:
			t.Fatal("the watcher is not dropped")
		case <-time.After(10 * time.Millisecond):
		}
	}
	got, err := io.Copy(io.Discard, in)
	if got > n*int64(len(big)) {
		t.Errorf("it was sent all, %d bytes: %v", got, err)
	}
}

// Requests that are taken back as soon as they are made cost their client its
// connection, at most, and others nothing.
func TestRapidReset(t *testing.T) {
	s := registrytest.Run(t, registrytest.TLS)
	conn := dial(t, s, "h2")
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, conn) }() // until it is closed
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	for _, f := range [][2]string{
		{":method", "GET"}, {":scheme", "https"}, {":authority", "knarr"}, {":path", "/api/v1/configmaps"}, {"authorization", "Bearer admin"},
	} {
		if err := enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true}); err != nil {
			t.Fatal(err)
		}
	}
	out := bufio.NewWriter(conn)
	framer := http2.NewFramer(out, nil)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	var err error
	for id := uint32(1); id < 40_000 && err == nil; id += 2 {
		if err = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head.Bytes(), EndStream: true, EndHeaders: true}); err == nil {
			err = framer.WriteRSTStream(id, http2.ErrCodeCancel)
		}
		if n := runtime.NumGoroutine(); n > 2000 {
			t.Fatalf("%d goroutines", n)
		}
	}
	works(t, s, "after")
}
