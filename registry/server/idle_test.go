package server_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/knarr-dev/knarr/registry/registrytest"
)

// A crowd is many watches on one connection of HTTP/2, by frames: a client of
// net/http would weigh more than what is to be weighed.
type crowd struct {
	conn   net.Conn
	framer *http2.Framer
	out    *bufio.Writer
	tell   func(what string) // began, told, or what has gone wrong
	reads  sync.WaitGroup
}

// join connects to the server for watches that tell is told of.
func join(t *testing.T, s *registrytest.Server, tell func(string)) *crowd {
	conn := dial(t, s, "h2")
	c := &crowd{conn: conn, out: bufio.NewWriter(conn), tell: tell}
	c.framer = http2.NewFramer(c.out, bufio.NewReader(conn))
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(c.out, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.framer.WriteSettings(), c.framer.WriteWindowUpdate(0, 1<<30), c.out.Flush()); err != nil {
		t.Fatal(err)
	}
	return c
}

// watch begins n watches and reads what they are sent until the connection
// is closed.
func (c *crowd) watch(t *testing.T, path string, n int) {
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	for _, f := range [][2]string{
		{":method", "GET"}, {":scheme", "https"}, {":authority", "knarr"}, {":path", path}, {"authorization", "Bearer admin"},
	} {
		if err := enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: head.Bytes(), EndStream: true, EndHeaders: true})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := c.out.Flush(); err != nil {
		t.Fatal(err)
	}
	c.reads.Go(c.read)
}

func (c *crowd) read() {
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return
		}
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			if f.PseudoValue("status") == "200" && !f.StreamEnded() {
				c.tell("began")
				continue
			}
			c.tell(fmt.Sprint(f.Fields))
		case *http2.DataFrame:
			if bytes.HasPrefix(f.Data(), []byte(`{"type":"ADDED",`)) && bytes.HasSuffix(f.Data(), []byte("}\n")) && !f.StreamEnded() {
				c.tell("told")
				continue
			}
			c.tell(fmt.Sprintf("%q, ended %v", f.Data(), f.StreamEnded()))
		case *http2.SettingsFrame:
			if most, is := f.Value(http2.SettingMaxConcurrentStreams); !f.IsAck() && (!is || most > perConn) {
				c.tell(fmt.Sprint("streams without a bound: ", f))
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			c.tell(f.Header().String())
		}
	}
}

// close ends all of the watches.
func (c *crowd) close(t *testing.T) {
	// Without the farewell of TLS, as a machine that is gone.
	if err := c.conn.(*tls.Conn).NetConn().Close(); err != nil {
		t.Error(err)
	}
	c.reads.Wait()
}

// weight is what the process holds in memory that it cannot give back.
func weight() int {
	for range 3 { // stacks shrink by half at a time
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// A tally counts what the watches of crowds tell.
type tally struct {
	mu   sync.Mutex
	seen map[string]int
}

func (y *tally) add(what string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.seen[what]++
}

// await waits until so many have told of what is wanted, and nobody of
// anything else.
func (y *tally) await(t *testing.T, want map[string]int) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(time.Minute); ; {
		y.mu.Lock()
		missing := false
		for what, n := range want {
			missing = missing || y.seen[what] < n
		}
		text := fmt.Sprint(y.seen)
		wrong := len(y.seen) > len(want)
		y.mu.Unlock()
		if wrong {
			t.Fatalf("the watches tell %.1000s", text)
		}
		if !missing {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("the watches tell %.1000s, wanted %v", text, want)
		}
	}
}

// What a watch that is idle may cost: measured are 27,000 bytes and a
// goroutine, besides two of each connection.
const (
	mostBytes    = 40_000
	mostRoutines = 1.1
)

// perConn is how many watches a connection may have.
const perConn = 250

// TestIdleWatches has many that watch while nothing happens: they cost little,
// keep nobody from anything, are all told when something does happen, and
// nothing of them stays.
func TestIdleWatches(t *testing.T) { idleWatches(t, 4) }

func idleWatches(t *testing.T, conns int) {
	n := conns * perConn
	s := registrytest.Run(t, registrytest.TLS)
	list, err := kubernetes.NewForConfigOrDie(s.Client(registrytest.Admin)).CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bytes, routines := weight(), runtime.NumGoroutine()
	seen := &tally{seen: map[string]int{}}
	var crowds []*crowd
	for range conns {
		c := join(t, s, seen.add)
		c.watch(t, "/api/v1/namespaces/default/configmaps?watch=1&resourceVersion="+list.ResourceVersion, perConn)
		crowds = append(crowds, c)
	}
	seen.await(t, map[string]int{"began": n})
	if per := (weight() - bytes) / n; per > mostBytes {
		t.Errorf("a watch costs %d bytes", per)
	}
	if per := float64(runtime.NumGoroutine()-routines) / float64(n); per > mostRoutines {
		t.Errorf("a watch costs %.1f goroutines", per)
	}
	works(t, s, "while")
	seen.await(t, map[string]int{"began": n, "told": n})
	for _, c := range crowds {
		c.close(t)
	}
	for end := time.After(time.Minute); watches(t, s) > 0; {
		select {
		case <-end:
			t.Fatal("the watches go on")
		case <-time.After(10 * time.Millisecond):
		}
	}
	// What they cost is given back, but for what lists of free things keep.
	if left := (weight() - bytes) / n; left > mostBytes/10 {
		t.Errorf("a watch that has ended still costs %d bytes", left)
	}
	if left := runtime.NumGoroutine() - routines; left > n/100 {
		t.Errorf("%d goroutines are left", left)
	}
}

// A watcher that reads other streams of its connection, but not this one, is
// dropped like one that reads nothing.
func TestStreamThatIsNotRead(t *testing.T) {
	s := registrytest.Run(t, registrytest.TLS)
	s.Handler.SlowWatch = 300 * time.Millisecond
	seen := &tally{seen: map[string]int{}}
	c := join(t, s, seen.add)
	defer c.close(t)
	c.watch(t, configMaps+"?watch=1&labelSelector=big", 1)
	seen.await(t, map[string]int{"began": 1})
	maps := kubernetes.NewForConfigOrDie(s.Client(registrytest.Admin)).CoreV1().ConfigMaps("default")
	cm := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "big", Labels: map[string]string{"big": ""}},
		Data:       map[string]string{"k": strings.Repeat("x", 200<<10)}, // more than the stream's window
	}
	if _, err := maps.Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for end := time.After(20 * time.Second); watches(t, s) > 0; {
		select {
		case <-end:
			t.Fatal("the watcher is not dropped")
		case <-time.After(10 * time.Millisecond):
		}
	}
	works(t, s, "after")
}
