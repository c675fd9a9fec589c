package inproc_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/authn"
	"github.com/knarr-dev/knarr/registry/inproc"
)

// call sends a request to h and returns the answer. It runs in a bubble in
// which a goroutine that is left behind makes the test fail.
func call(t *testing.T, ctx context.Context, method string, body io.Reader, h http.HandlerFunc) (*http.Response, error) { //nolint:revive // the test comes first
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, "http://knarr/path?q=1", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer x")
	resp, err := (&inproc.Transport{Handler: h, User: registry.User{Name: "jane"}}).RoundTrip(req)
	if req.Header.Get("Authorization") == "" {
		t.Error("the handler has changed the client's header")
	}
	return resp, err
}

func TestAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chain := &authn.Chain{}
		resp, err := call(t, t.Context(), http.MethodPost, strings.NewReader("ping"), func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Authorization")
			user, ok, err := chain.Request(r)
			if err != nil || !ok || user.Name != "jane" || !user.In(registry.Authenticated) {
				t.Errorf("user %v %v: %v", user, ok, err)
			}
			sent, _ := io.ReadAll(r.Body)
			w.Header().Set("X-Sent", string(sent)+r.RequestURI)
			w.WriteHeader(http.StatusTeapot)
			w.Header().Set("X-Late", "too late")
			_, _ = io.WriteString(w, "pong")
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != "pong" || resp.StatusCode != http.StatusTeapot || resp.Header.Get("X-Sent") != "ping/path?q=1" {
			t.Errorf("%d %v %q: %v", resp.StatusCode, resp.Header, body, err)
		}
	})
}

func TestHeadHasNoBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resp, err := call(t, t.Context(), http.MethodHead, nil, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "4")
			_, _ = io.WriteString(w, "pong")
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if body, _ := io.ReadAll(resp.Body); len(body) > 0 || resp.ContentLength != 4 {
			t.Errorf("body %q of %d", body, resp.ContentLength)
		}
	})
}

// TestStream reads events as they come, and ends the handler by closing.
func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		say, ended := make(chan string), make(chan error, 1)
		resp, err := call(t, t.Context(), http.MethodGet, nil, func(w http.ResponseWriter, r *http.Request) {
			defer func() { ended <- r.Context().Err() }()
			out := http.NewResponseController(w)
			if err := out.Flush(); err != nil {
				t.Error(err)
			}
			for {
				select {
				case s := <-say:
					_, _ = io.WriteString(w, s)
					_ = out.Flush()
				case <-r.Context().Done():
					return
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		for _, s := range []string{"one", "two"} {
			say <- s
			if n, err := resp.Body.Read(buf); err != nil || string(buf[:n]) != s {
				t.Errorf("read %q: %v", buf[:n], err)
			}
		}
		_ = resp.Body.Close()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("handler ended by %v", err)
		}
	})
}

// TestLarge holds that who writes much waits for who reads.
func TestLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const chunk, chunks = 100 << 10, 50
		var written atomic.Int64
		resp, err := call(t, t.Context(), http.MethodGet, nil, func(w http.ResponseWriter, _ *http.Request) {
			for i := range chunks {
				n, _ := w.Write(bytes.Repeat([]byte{byte(i)}, chunk))
				written.Add(int64(n))
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		synctest.Wait()
		if n := written.Load(); n > chunk {
			t.Errorf("%d bytes were written before any was read", n)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || len(body) != chunk*chunks {
			t.Fatalf("read %d bytes: %v", len(body), err)
		}
		for i := range chunks {
			if body[i*chunk] != byte(i) || body[(i+1)*chunk-1] != byte(i) {
				t.Fatalf("chunk %d is not as written", i)
			}
		}
	})
}

// TestRequestBody streams the request's body.
func TestRequestBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		go func() {
			_, _ = io.WriteString(w, "one")
			_ = w.CloseWithError(io.ErrUnexpectedEOF)
		}()
		resp, err := call(t, t.Context(), http.MethodPost, r, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if string(body) != "one" || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("handler read %q: %v", body, err)
			}
			w.WriteHeader(http.StatusNoContent)
		})
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusNoContent {
			t.Errorf("code %d", resp.StatusCode)
		}
	})
}

// TestCancel ends requests whose client does not want them any more, before
// and after there is an answer.
func TestCancel(t *testing.T) {
	for name, begin := range map[string]bool{"before": false, "after": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan struct{})
				resp, err := call(t, ctx, http.MethodGet, nil, func(w http.ResponseWriter, r *http.Request) {
					defer close(ended)
					if !begin {
						cancel()
					} else {
						w.(http.Flusher).Flush()
					}
					<-r.Context().Done()
				})
				if begin {
					if err != nil {
						t.Fatal(err)
					}
					go cancel()
					_, err = io.ReadAll(resp.Body)
					_ = resp.Body.Close()
				}
				if !errors.Is(err, context.Canceled) {
					t.Errorf("client got %v", err)
				}
				<-ended
				cancel()
			})
		})
	}
}

// TestAbort shows the client that an answer is not whole.
func TestAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resp, err := call(t, t.Context(), http.MethodGet, nil, func(http.ResponseWriter, *http.Request) { panic("bad") })
		if err == nil {
			_ = resp.Body.Close()
			t.Error("no error of a panic")
		}
		resp, err = call(t, t.Context(), http.MethodGet, nil, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "half")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if body, err := io.ReadAll(resp.Body); string(body) != "half" || err == nil {
			t.Errorf("read %q: %v", body, err)
		}
	})
}

// answer2k answers as a GET of a pod does.
func answer2k(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", "2048")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(make([]byte, 2048))
}

func BenchmarkTransport(b *testing.B) {
	tr := &inproc.Transport{Handler: http.HandlerFunc(answer2k)}
	req := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "http://knarr/api/v1/namespaces/a/pods/b", nil)
	b.ReportAllocs()
	for b.Loop() {
		resp, err := tr.RoundTrip(req)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
}

func BenchmarkHandler(b *testing.B) {
	req := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "http://knarr/api/v1/namespaces/a/pods/b", nil)
	b.ReportAllocs()
	for b.Loop() {
		answer2k(httptest.NewRecorder(), req)
	}
}
