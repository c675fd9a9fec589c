package logs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A container is a log that a test writes as a runtime would.
type container struct {
	t     *testing.T
	path  string
	log   *os.File
	ended atomic.Bool
	late  atomic.Int32 // how often it is still said to run after its end
}

func start(t *testing.T) *container {
	c := &container{t: t, path: filepath.Join(t.TempDir(), "ns_p_uid", "c", "0.log")}
	if err := os.MkdirAll(filepath.Dir(c.path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.open(); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *container) open() error {
	log, err := os.OpenFile(c.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	c.log = log
	return err
}

func (c *container) close() {
	if err := c.log.Close(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *container) print(s string) {
	if _, err := fmt.Fprintf(c.log, "2024-01-01T00:00:01Z stdout F %s\n", s); err != nil {
		c.t.Fatal(err)
	}
}

func (c *container) runtime() runtime {
	return runtime{path: c.path, state: func() runtimeapi.ContainerState {
		if c.ended.Load() && c.late.Add(-1) < 0 {
			return runtimeapi.ContainerState_CONTAINER_EXITED
		}
		return runtimeapi.ContainerState_CONTAINER_RUNNING
	}, open: func() error {
		old := container{t: c.t, log: c.log}
		time.AfterFunc(50*time.Millisecond, func() { // a runtime has some left to write
			old.print("last words")
			old.close()
		})
		return c.open()
	}}
}

// follow returns what a follower prints, write by write, and its end.
func (c *container) follow(ctx context.Context, opts corev1.PodLogOptions) (<-chan string, <-chan error) {
	out, end := make(chan string, 100), make(chan error, 1)
	opts.Follow = true
	go func() {
		r := Reader{Runtime: c.runtime()}
		end <- r.Read(ctx, running("1"), "c", &opts, writer(out))
	}()
	return out, end
}

type writer chan string

func (w writer) Write(b []byte) (int, error) {
	w <- string(b)
	return len(b), nil
}

func (c *container) expect(out <-chan string, want string) {
	c.t.Helper()
	got := ""
	for deadline := time.After(10 * time.Second); got != want; {
		select {
		case s := <-out:
			got += s
			if !strings.HasPrefix(want, got) {
				c.t.Fatalf("got %q, want %q", got, want)
			}
		case <-deadline:
			c.t.Fatalf("got %q, want %q", got, want)
		}
	}
}

func (c *container) expectEnd(end <-chan error) {
	c.t.Helper()
	select {
	case err := <-end:
		if err != nil {
			c.t.Fatal(err)
		}
	case <-time.After(3 * time.Second): // less than the safety net
		c.t.Fatal("still following")
	}
}

func TestFollowEndsWithContainer(t *testing.T) {
	c := start(t)
	c.print("before")
	out, end := c.follow(t.Context(), corev1.PodLogOptions{})
	c.expect(out, "before\n")
	c.print("after")
	c.expect(out, "after\n")
	c.print("end")
	c.close()
	c.late.Store(5) // as a runtime is
	c.ended.Store(true)
	c.expect(out, "end\n")
	c.expectEnd(end)
}

func TestFollowWaitsForWholeLine(t *testing.T) {
	c := start(t)
	c.print("before")
	out, end := c.follow(t.Context(), corev1.PodLogOptions{TailLines: new(int64(1))})
	c.expect(out, "before\n")
	fmt.Fprint(c.log, "2024-01-01T00:00:01Z stdout F be")
	fmt.Fprint(c.log, "gun\n")
	c.expect(out, "begun\n")
	c.ended.Store(true)
	c.close()
	c.expectEnd(end)
}

func TestFollowAcrossRotations(t *testing.T) {
	c := start(t)
	out, end := c.follow(t.Context(), corev1.PodLogOptions{})
	r := Rotator{Dir: filepath.Dir(filepath.Dir(filepath.Dir(c.path))), MaxSize: 10, MaxFiles: 3, Runtime: c.runtime()}
	for i := range 4 {
		c.print(fmt.Sprint("line ", i))
		c.expect(out, fmt.Sprintf("line %d\n", i))
		// Files put aside within a second have one name.
		if err := os.Chtimes(c.path, time.Time{}, time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := r.Look(t.Context()); err != nil && !strings.Contains(err.Error(), "no such container") {
			t.Fatal(err)
		}
		c.expect(out, "last words\n")
	}
	c.print("new file")
	c.expect(out, "new file\n")
	c.ended.Store(true)
	c.close()
	c.expectEnd(end)
}

func TestFollowEndsWithContext(t *testing.T) {
	c := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	c.print("x")
	out, end := c.follow(ctx, corev1.PodLogOptions{})
	c.expect(out, "x\n")
	cancel()
	c.expectEnd(end)
}

func TestRotateKeepsNewest(t *testing.T) {
	c := start(t)
	r := Rotator{Dir: filepath.Dir(filepath.Dir(filepath.Dir(c.path))), MaxSize: 10, MaxFiles: 4, Runtime: c.runtime()}
	for _, old := range []string{".20240101-000001", ".20240101-000002.gz", ".20240101-000003", ".20240101-000003.tmp"} {
		if err := os.WriteFile(c.path+old, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.print("large enough")
	if err := r.Look(t.Context()); err != nil && !strings.Contains(err.Error(), "no such container") {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(c.path + "*")
	if len(files) != 4 || files[0] != c.path || files[1] != c.path+".20240101-000002.gz" || files[2] != c.path+".20240101-000003.gz" {
		t.Errorf("kept %v", files)
	}
	if info, err := os.Stat(c.path); err != nil || info.Size() != 0 {
		t.Errorf("the log was not reopened: %v %v", info, err)
	}
}
