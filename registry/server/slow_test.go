package server_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/knarr-dev/knarr/registry/registrytest"
)

// A client that does not come to the end of its body is answered when its
// time is up, and holds no place among the writes any more.
func TestSlowBody(t *testing.T) {
	s := registrytest.Run(t, registrytest.TLS)
	for name, c := range map[string]struct {
		token string
		code  int
	}{
		"somebody": {"admin", http.StatusGatewayTimeout},
		"nobody":   {"wrong", http.StatusUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := dial(t, s, "http/1.1")
			if _, err := io.WriteString(conn, "POST /api/v1/namespaces/default/configmaps?timeout=300ms HTTP/1.1\r\nHost: knarr\r\n"+
				"Authorization: Bearer "+c.token+"\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"); err != nil {
				t.Fatal(err)
			}
			if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			in := bufio.NewReader(conn)
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			defer func() { _ = resp.Body.Close() }() // it is read
			if resp.StatusCode != c.code {
				t.Errorf("code %d", resp.StatusCode)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				t.Error(err)
			}
			if _, err := in.ReadByte(); err != io.EOF {
				t.Errorf("the connection is not closed: %v", err)
			}
		})
	}
}

// A body may come slowly, and the connection be used on.
func TestSlowBodyInTime(t *testing.T) {
	s := registrytest.Run(t, registrytest.TLS)
	conn := dial(t, s, "http/1.1")
	in := bufio.NewReader(conn)
	for range 2 {
		const body = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"slow-"}}`
		head := fmt.Sprintf("POST /api/v1/namespaces/default/configmaps?timeout=2s HTTP/1.1\r\nHost: knarr\r\n"+
			"Authorization: Bearer admin\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(body))
		for _, part := range []string{head, body[:10], body[10:]} {
			if _, err := io.WriteString(conn, part); err != nil {
				t.Fatal(err)
			}
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close() // it is read
		if err != nil || resp.StatusCode != http.StatusCreated {
			t.Fatalf("code %d: %v", resp.StatusCode, err)
		}
	}
}
