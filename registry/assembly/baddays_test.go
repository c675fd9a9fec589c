//go:build integration

package assembly_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/knarr-dev/knarr/registry/assembly"
	"github.com/knarr-dev/knarr/registry/etcd"
	"github.com/knarr-dev/knarr/registry/registrytest"
)

// patience is how long a test waits for what must come.
const patience = time.Minute

// A base is an etcd that fails as it is told to.
type base struct {
	t    *testing.T
	dir  string
	url  string // its own
	args []string
	cmd  *exec.Cmd
	way  *way // between it and the API server
}

func newBase(t *testing.T, args ...string) *base {
	t.Helper()
	b := &base{t: t, dir: t.TempDir(), url: "http://" + freeAddress(t), args: args}
	b.start()
	t.Cleanup(b.kill)
	b.way = newWay(t, strings.TrimPrefix(b.url, "http://"))
	return b
}

// start starts etcd, and waits until it answers.
func (b *base) start() {
	b.t.Helper()
	program, err := exec.LookPath("etcd")
	if err != nil {
		if program, err = filepath.Abs("../../bin/etcd"); err != nil {
			b.t.Fatal(err)
		}
	}
	b.cmd = exec.Command(program, append([]string{
		"--data-dir=" + filepath.Join(b.dir, "etcd"), "--listen-client-urls=" + b.url, "--advertise-client-urls=" + b.url,
		"--listen-peer-urls=http://127.0.0.1:0", "--initial-advertise-peer-urls=http://127.0.0.1:1", "--initial-cluster=default=http://127.0.0.1:1",
		"--log-level=error", "--unsafe-no-fsync",
	}, b.args...)...)
	if err := b.cmd.Start(); err != nil {
		b.t.Fatalf("start etcd, which `make integration` builds: %v", err)
	}
	eventually(b.t, "etcd answers", func() error {
		_, err := b.ask("/v3/maintenance/status", `{}`)
		return err
	})
}

// kill ends etcd as a crash would.
func (b *base) kill() {
	if b.cmd == nil {
		return
	}
	if err := b.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		b.t.Error(err)
	}
	_ = b.cmd.Wait() // it was killed
	b.cmd = nil
}

// ask sends a request to etcd past the API server.
func (b *base) ask(path, body string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // it was read
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return text, err
}

// do is ask for what must work.
func (b *base) do(path, body string) []byte {
	b.t.Helper()
	text, err := b.ask(path, body)
	if err != nil {
		b.t.Fatalf("%s: %v", path, err)
	}
	return text
}

// serve runs an API server on the base, reached by its way.
func (b *base) serve() *kubernetes.Clientset {
	b.t.Helper()
	store, err := etcd.Dial([]string{"http://" + b.way.address}, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	s := registrytest.Run(b.t, registrytest.With(func(cfg *assembly.Config) { cfg.Store = store }))
	b.t.Cleanup(func() { // before the server counts what is left
		_ = store.Close() // etcd may be gone
		b.way.close()
	})
	return kubernetes.NewForConfigOrDie(s.Client(registrytest.Admin))
}

// A way is a proxy that lets pass what it is given, after a while.
type way struct {
	address string

	mu    sync.Mutex
	open  chan struct{} // closed while all may pass
	conns []io.Closer
	all   sync.WaitGroup
}

// keep has c closed at the end.
func (w *way) keep(c ...io.Closer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = append(w.conns, c...)
}

// cut ends all connections with what is on its way, and holds new ones.
func (w *way) cut() (release func()) {
	release = w.hold()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		if conn, is := c.(net.Conn); is {
			_ = conn.Close() // some are closed
		}
	}
	return release
}

// close ends all connections.
func (w *way) close() {
	w.mu.Lock()
	for _, c := range w.conns {
		_ = c.Close() // some are closed
	}
	w.mu.Unlock()
	w.all.Wait()
}

func newWay(t *testing.T, to string) *way {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &way{address: l.Addr().String(), open: make(chan struct{})}
	close(w.open)
	w.keep(l)
	w.all.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close() // as if nobody listened
				continue
			}
			w.keep(in, out)
			w.all.Go(func() { w.carry(in, out) })
			w.all.Go(func() { w.carry(out, in) })
		}
	})
	return w
}

// carry copies until one end is closed.
func (w *way) carry(from, to net.Conn) {
	defer func() { _, _ = from.Close(), to.Close() }() // the other direction may have done it
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		w.mu.Lock()
		open := w.open
		w.mu.Unlock()
		<-open
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// hold stops all until the returned func is called.
func (w *way) hold() (release func()) {
	open := make(chan struct{})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = open
	return sync.OnceFunc(func() { close(open) })
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // nobody has connected
	return l.Addr().String()
}

// eventually tries until it works.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	end := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not in time: %s: %v", what, err)
		}
	}
}

func create(ctx context.Context, client *kubernetes.Clientset, name string, size int) error {
	_, err := client.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"k": strings.Repeat("x", size)},
	}, metav1.CreateOptions{})
	return err
}

// follow watches config maps and tells the names as they come.
func follow(t *testing.T, client *kubernetes.Clientset) (next func() string) {
	t.Helper()
	list, err := client.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := client.CoreV1().ConfigMaps("default").Watch(t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return func() string {
		t.Helper()
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				t.Fatal("the watch has ended")
			}
			return string(e.Type) + " " + e.Object.(*corev1.ConfigMap).Name
		case <-time.After(patience):
			t.Fatal("an event is missing")
		}
		return ""
	}
}

func expect(t *testing.T, next func() string, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := next(); got != w {
			t.Fatalf("event %q, want %q", got, w)
		}
	}
}

// check is how a health check says things are.
func check(t *testing.T, client *kubernetes.Clientset, path string) (code int, text string) {
	t.Helper()
	body, err := client.RESTClient().Get().AbsPath(path).Do(t.Context()).StatusCode(&code).Raw()
	if err != nil && code == 0 {
		t.Fatal(err)
	}
	return code, string(body)
}

// TestEtcdGone takes etcd away for a while. What is at hand is still read,
// the rest is refused, and all goes on when etcd is back.
func TestEtcdGone(t *testing.T) {
	b := newBase(t)
	client := b.serve()
	if err := create(t.Context(), client, "before", 1); err != nil {
		t.Fatal(err)
	}
	next := follow(t, client)
	b.kill()
	maps := client.CoreV1().ConfigMaps("default")
	list, err := maps.List(t.Context(), metav1.ListOptions{ResourceVersion: "0"})
	if err != nil || len(list.Items) != 1 {
		t.Errorf("list what is at hand: %+v, %v", list, err)
	}
	if _, err := maps.Get(t.Context(), "before", metav1.GetOptions{ResourceVersion: "0"}); err != nil {
		t.Errorf("get what is at hand: %v", err)
	}
	var failed sync.WaitGroup
	for name, do := range map[string]func() error{
		"list":   func() error { _, err := maps.List(t.Context(), metav1.ListOptions{}); return err },
		"get":    func() error { _, err := maps.Get(t.Context(), "before", metav1.GetOptions{}); return err },
		"create": func() error { return create(t.Context(), client, "during", 1) },
		"delete": func() error { return maps.Delete(t.Context(), "before", metav1.DeleteOptions{}) },
	} {
		failed.Go(func() {
			if err := do(); !apierrors.IsInternalError(err) && !apierrors.IsTimeout(err) {
				t.Errorf("%s without etcd: %#v", name, err)
			}
		})
	}
	if code, text := check(t, client, "/readyz"); code != http.StatusInternalServerError || !strings.Contains(text, "[-]etcd failed: reason withheld") {
		t.Errorf("readyz without etcd: %d %s", code, text)
	}
	failed.Wait()
	b.start()
	eventually(t, "writes work again", func() error { return create(t.Context(), client, "after", 1) })
	expect(t, next, "ADDED after")
	if err := create(t.Context(), client, "last", 1); err != nil {
		t.Fatal(err)
	}
	expect(t, next, "ADDED last")
	eventually(t, "ready again", func() error {
		if code, text := check(t, client, "/readyz"); code != http.StatusOK {
			return errors.New(text)
		}
		return nil
	})
}

// TestEtcdSlow has etcd take longer than clients want to wait.
func TestEtcdSlow(t *testing.T) {
	b := newBase(t)
	client := b.serve()
	if err := create(t.Context(), client, "before", 1); err != nil {
		t.Fatal(err)
	}
	next := follow(t, client)
	release := b.way.hold()
	defer release()
	var code int
	ask := func(verb, path, body string) error {
		r := client.RESTClient().Verb(verb).AbsPath("/api/v1/namespaces/default/configmaps"+path).Param("timeout", "300ms")
		if body != "" {
			r = r.SetHeader("Content-Type", "application/json").Body([]byte(body))
		}
		return r.Do(t.Context()).StatusCode(&code).Error()
	}
	for _, try := range [][3]string{
		{"GET", "", ""}, {"GET", "/before", ""}, {"POST", "", `{"metadata":{"name":"during"}}`}, {"DELETE", "/before", ""},
	} {
		if err := ask(try[0], try[1], try[2]); !apierrors.IsTimeout(err) || code != http.StatusGatewayTimeout {
			t.Errorf("%s %s of a slow etcd: %d %#v", try[0], try[1], code, err)
		}
	}
	release()
	if err := create(t.Context(), client, "last", 1); err != nil {
		t.Fatal(err)
	}
	for { // what was asked for in vain may have been done
		if got := next(); got == "ADDED last" {
			break
		} else if got != "ADDED during" && got != "DELETED before" {
			t.Fatalf("event %q", got)
		}
	}
}

// TestEtcdFull fills etcd. Writes are refused, reads go on, and it works
// again when there is room, without a restart.
func TestEtcdFull(t *testing.T) {
	b := newBase(t, "--quota-backend-bytes=4194304")
	client := b.serve()
	next := follow(t, client)
	var err error
	made := 0
	for ; made < 100 && err == nil; made++ {
		err = create(t.Context(), client, fmt.Sprintf("big-%d", made), 256<<10)
	}
	made--
	if !apierrors.IsInternalError(err) || !strings.Contains(fmt.Sprint(err), "etcdserver: mvcc: database space exceeded") {
		t.Fatalf("after %d a write fails with %#v", made, err)
	}
	list, err := client.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) < made {
		t.Fatalf("list when etcd is full: %v", err)
	}
	made = len(list.Items) // etcd may have done the write that it had no room for
	for i := range made {
		expect(t, next, fmt.Sprintf("ADDED big-%d", i))
	}
	if code, text := check(t, client, "/readyz"); code != http.StatusOK {
		t.Errorf("what can be read is not ready: %d %s", code, text)
	}
	// Deletions are still taken: etcd needs them to have room again.
	for i := range made {
		if err := client.CoreV1().ConfigMaps("default").Delete(t.Context(), fmt.Sprintf("big-%d", i), metav1.DeleteOptions{}); err != nil {
			t.Fatalf("delete when etcd is full: %v", err)
		}
		expect(t, next, fmt.Sprintf("DELETED big-%d", i))
	}
	b.compact()
	b.do("/v3/maintenance/defragment", `{}`)
	b.disarm()
	eventually(t, "writes work again", func() error { return create(t.Context(), client, "last", 1) })
	expect(t, next, "ADDED last")
}

// disarm ends all alarms, of which there must be some.
func (b *base) disarm() {
	b.t.Helper()
	var list struct {
		Alarms []struct {
			MemberID string `json:"memberID"`
			Alarm    string `json:"alarm"`
		} `json:"alarms"`
	}
	if err := json.Unmarshal(b.do("/v3/maintenance/alarm", `{"action":"GET"}`), &list); err != nil || len(list.Alarms) == 0 {
		b.t.Fatalf("alarms %v: %v", list.Alarms, err)
	}
	for _, a := range list.Alarms {
		b.do("/v3/maintenance/alarm", fmt.Sprintf(`{"action":"DEACTIVATE","memberID":%q,"alarm":%q}`, a.MemberID, a.Alarm))
	}
}

// compact forgets all of etcd's history.
func (b *base) compact() {
	b.t.Helper()
	var status struct {
		Header struct{ Revision string }
	}
	if err := json.Unmarshal(b.do("/v3/maintenance/status", `{}`), &status); err != nil {
		b.t.Fatal(err)
	}
	b.do("/v3/kv/compaction", fmt.Sprintf(`{"revision":%q,"physical":true}`, status.Header.Revision))
}

// TestCompactedBehind has etcd forget what the server has not seen: it reads
// all anew, and no watcher misses what has come of it, or sees it twice.
func TestCompactedBehind(t *testing.T) {
	b := newBase(t)
	client := b.serve()
	for _, name := range []string{"kept", "changed", "changes", "gone"} {
		if err := create(t.Context(), client, name, 1); err != nil {
			t.Fatal(err)
		}
	}
	next := follow(t, client)
	maps := client.CoreV1().ConfigMaps("default")
	old, err := maps.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// While the server does not hear of it another changes things.
	release := b.way.cut()
	defer release()
	for name, like := range map[string]string{"made": "kept", "changes": "changed"} {
		b.copy(like, name)
	}
	key := base64.StdEncoding.EncodeToString([]byte("/registry/configmaps/default/gone"))
	b.do("/v3/kv/deleterange", fmt.Sprintf(`{"key":%q}`, key))
	b.compact()
	release()
	want := map[string]bool{"ADDED made": true, "MODIFIED changes": true, "DELETED gone": true}
	for len(want) > 0 {
		got := next()
		if !want[got] {
			t.Fatalf("event %q, still wanted %v", got, want)
		}
		delete(want, got)
	}
	// Who comes with what it knew before is told to begin anew, and can.
	if _, err := maps.Watch(t.Context(), metav1.ListOptions{ResourceVersion: old.ResourceVersion}); !apierrors.IsResourceExpired(err) {
		t.Errorf("watch from behind the compaction: %v", err)
	}
	if _, err := maps.List(t.Context(), metav1.ListOptions{ResourceVersion: old.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchExact}); !apierrors.IsResourceExpired(err) {
		t.Errorf("list as of before the compaction: %v", err)
	}
	anew := follow(t, client)
	if err := create(t.Context(), client, "last", 1); err != nil {
		t.Fatal(err)
	}
	expect(t, next, "ADDED last")
	expect(t, anew, "ADDED last")
}

// copy puts what stands as one config map at the key of another.
func (b *base) copy(from, to string) {
	b.t.Helper()
	key := func(name string) string {
		return base64.StdEncoding.EncodeToString([]byte("/registry/configmaps/default/" + name))
	}
	var got struct{ Kvs []struct{ Value []byte } }
	if err := json.Unmarshal(b.do("/v3/kv/range", fmt.Sprintf(`{"key":%q}`, key(from))), &got); err != nil || len(got.Kvs) != 1 {
		b.t.Fatalf("read %s: %v", from, err)
	}
	// A name of another length would need more than this.
	value := bytes.Replace(got.Kvs[0].Value, []byte(from), []byte(to), 1)
	b.do("/v3/kv/put", fmt.Sprintf(`{"key":%q,"value":%q}`, key(to), base64.StdEncoding.EncodeToString(value)))
}
