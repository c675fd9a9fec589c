//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// kill ends a process as a crash would.
func kill(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10000); err != nil || n != 1 {
		t.Fatalf("it does not end: %v", err)
	}
}

// A history is what an informer has told, by object.
type history struct {
	mu   sync.Mutex
	seen map[string][]string
}

func (h *history) add(name, what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen[name] = append(h.seen[name], what)
}

// watchMaps has stock informers, as client-go makes them, follow the config
// maps of a namespace.
func watchMaps(t *testing.T, c kubernetes.Interface, ns string) *history {
	t.Helper()
	h := &history{seen: map[string][]string{}}
	f := informers.NewSharedInformerFactoryWithOptions(c, 0, informers.WithNamespace(ns))
	value := func(o any) (string, string) {
		if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
			o = gone.Obj
		}
		m := o.(*corev1.ConfigMap)
		return m.Name, m.Data["v"]
	}
	_, err := f.Core().V1().ConfigMaps().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { n, v := value(o); h.add(n, "add "+v) },
		UpdateFunc: func(_, o any) { n, v := value(o); h.add(n, "update "+v) },
		DeleteFunc: func(o any) { n, _ := value(o); h.add(n, "delete") },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	f.StartWithContext(ctx)
	f.WaitForCacheSyncWithContext(ctx)
	t.Cleanup(func() { stop(); f.Shutdown() })
	return h
}

// TestInformer has a stock informer see every create, update and delete of a
// thousand config maps, in order, across a crash of the server.
func TestInformer(t *testing.T) {
	const ns, many = "e2e-informer", 1000
	namespace(t, ns)
	cfg := config(t)
	cfg.QPS, cfg.Burst = -1, 0
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h := watchMaps(t, c, ns)
	maps := c.CoreV1().ConfigMaps(ns)
	each := func(do func(name string) error) {
		t.Helper()
		var wait sync.WaitGroup
		for w := range 8 {
			wait.Go(func() {
				for i := w; i < many; i += 8 {
					if err := do(fmt.Sprintf("m%d", i)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wait.Wait()
	}
	each(func(name string) error {
		_, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"v": "1"}}, metav1.CreateOptions{})
		return err
	})
	each(func(name string) error { return update(t, c, ns, name, "2") })
	h.await(t, many, "add 1", "update 2")
	under.crash(t)
	under.restart(t)
	for i := range many {
		m, err := maps.Get(t.Context(), fmt.Sprintf("m%d", i), metav1.GetOptions{})
		if err != nil || m.Data["v"] != "2" {
			t.Fatalf("after the crash: %v %v", m, err)
		}
	}
	each(func(name string) error { return update(t, c, ns, name, "3") })
	h.await(t, many, "add 1", "update 2", "update 3")
	each(func(name string) error { return maps.Delete(t.Context(), name, metav1.DeleteOptions{}) })
	h.await(t, many, "add 1", "update 2", "update 3", "delete")
}

func update(t *testing.T, c kubernetes.Interface, ns, name, value string) error {
	m, err := c.CoreV1().ConfigMaps(ns).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	m.Data["v"] = value
	_, err = c.CoreV1().ConfigMaps(ns).Update(t.Context(), m, metav1.UpdateOptions{})
	return err
}

// await waits until each of many objects has had exactly these events. The
// same value may be told again after a reconnection.
func (h *history) await(t *testing.T, many int, want ...string) {
	t.Helper()
	eventually(t, time.Minute, func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		for i := range many {
			name := fmt.Sprintf("m%d", i)
			var got []string
			for _, e := range h.seen[name] {
				if len(got) == 0 || got[len(got)-1] != e {
					got = append(got, e)
				}
			}
			if strings.Join(got, ", ") != strings.Join(want, ", ") {
				return fmt.Errorf("%s: %v, want %v", name, got, want)
			}
		}
		return nil
	})
}

// TestCrash kills the cluster's process: containers and connections go on,
// services answer meanwhile, and nothing that was acknowledged is lost.
func TestCrash(t *testing.T) {
	const ns = "e2e-crash"
	namespace(t, ns)
	k := func(args ...string) string { t.Helper(); return kubectl(t, append([]string{"-n", ns}, args...)...) }
	k("create", "deployment", "web", "--image=knarr.local/demo:latest", "--replicas=2")
	k("rollout", "status", "deployment/web", "--timeout=60s")
	k("expose", "deployment", "web", "--port=80", "--target-port=8080")
	address := k("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}") + ":80"
	eventually(t, 5*time.Second, func() error { _, err := ask(t.Context(), address); return err })
	containers := func() string {
		return k("get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{"\n"}{end}`)
	}
	before := containers()
	conn := dial(t, address)
	defer func() { _ = conn.Close() }()
	still := func() {
		t.Helper()
		if _, err := fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: web\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if first, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(first, "200 OK") {
			t.Fatalf("%s %v", first, err)
		}
	}
	still()
	k("create", "configmap", "written", "--from-literal=v=just-before")
	under.crash(t)
	still()
	for range 50 {
		if _, err := ask(t.Context(), address); err != nil {
			t.Errorf("while nothing runs: %v", err)
		}
	}
	under.restart(t)
	still()
	if got := k("get", "configmap", "written", "-o", "jsonpath={.data.v}"); got != "just-before" {
		t.Errorf("written just before the crash, and now %q", got)
	}
	k("rollout", "status", "deployment/web", "--timeout=60s")
	if after := containers(); after != before {
		t.Errorf("containers before:\n%s\nafter:\n%s", before, after)
	}
	k("set", "env", "deployment/web", "A=b")
	k("rollout", "status", "deployment/web", "--timeout=60s")
}
