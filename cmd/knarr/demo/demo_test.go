package demo

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestDialCountsAnswers(t *testing.T) {
	var n atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		name := "a"
		if n.Add(1)%3 == 0 {
			name = "b"
		}
		_, _ = w.Write([]byte(name + "\n"))
	}))
	defer srv.Close()
	var out bytes.Buffer
	if err := ask(t.Context(), &out, srv.URL, 30); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "    20 a\n    10 b\n"; got != want {
		t.Errorf("counted\n%swant\n%s", got, want)
	}
	srv.Close()
	if err := ask(t.Context(), &out, srv.URL, 3); err == nil || !strings.Contains(err.Error(), "3 of 3") {
		t.Errorf("nobody there: %v", err)
	}
}

// lines is a writer whose first line can be waited for.
type lines struct {
	bytes.Buffer

	first chan string
}

func (l *lines) Write(p []byte) (int, error) {
	select {
	case l.first <- string(p):
	default:
	}
	return l.Buffer.Write(p)
}

func TestServe(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &lines{first: make(chan string, 1)}
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, out, "127.0.0.1:0") }()
	var said string
	select {
	case said = <-out.first:
	case <-time.After(10 * time.Second):
		t.Fatal("it does not say that it serves")
	}
	address := strings.TrimSpace(said[strings.LastIndexByte(said, ' ')+1:])
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("COLOUR", "blue")
	for path, want := range map[string]string{"/": name, "/env/COLOUR": "blue"} {
		got, err := get(t.Context(), http.DefaultClient, address+path)
		if err != nil || got != want {
			t.Errorf("%s answers %q: %v", path, got, err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
}

func TestCommands(t *testing.T) {
	for _, args := range [][]string{{"crash"}, {"sleep", "long"}, {"dial"}, {"serve"}} {
		cmd := Command()
		cmd.SetArgs(args)
		cmd.SetOut(&bytes.Buffer{})
		cmd.SetErr(&bytes.Buffer{})
		if err := cmd.ExecuteContext(t.Context()); err == nil {
			t.Errorf("%v succeeds", args)
		}
	}
	cmd := Command()
	cmd.SetArgs([]string{"sleep", "1ms"})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Error(err)
	}
}
