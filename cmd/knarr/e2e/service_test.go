//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ask asks a service once, by a connection of its own, for the name of the pod.
func ask(ctx context.Context, address string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", http.NoBody)
	if err != nil {
		return "", err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return strings.TrimSpace(string(b)), err
}

// TestService reaches all pods of a service, from the host and from a pod,
// and none that are gone.
func TestService(t *testing.T) {
	const ns = "e2e-service"
	namespace(t, ns)
	k := func(args ...string) string { t.Helper(); return kubectl(t, append([]string{"-n", ns}, args...)...) }
	k("create", "deployment", "web", "--image=knarr.local/demo:latest", "--replicas=3")
	k("rollout", "status", "deployment/web", "--timeout=60s")
	k("expose", "deployment", "web", "--port=80", "--target-port=8080")
	k("run", "client", "--image=knarr.local/busybox:latest", "--", "sleep", "3600")
	k("wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	pods := strings.Fields(k("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}"))
	address := k("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}") + ":80"
	everyone := func(from string, count map[string]int) {
		t.Helper()
		for _, p := range pods {
			if count[p] == 0 {
				t.Errorf("from %s, 300 requests reach %v, and not %s", from, count, p)
			}
		}
		if len(count) != len(pods) {
			t.Errorf("from %s, 300 requests reach %v", from, count)
		}
	}
	eventually(t, 5*time.Second, func() error { _, err := ask(t.Context(), address); return err })
	count := map[string]int{}
	for range 300 {
		name, err := ask(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		count[name]++
	}
	everyone("the host", count)
	count = map[string]int{}
	for name := range strings.FieldsSeq(k("exec", "client", "--", "sh", "-c", "for i in $(seq 300); do wget -qO- http://"+address+"/ || exit 1; done")) {
		count[name]++
	}
	everyone("a pod", count)

	k("scale", "deployment/web", "--replicas=0")
	eventually(t, 30*time.Second, func() error {
		_, err := ask(t.Context(), address)
		if err == nil || !strings.Contains(err.Error(), unix.ECONNREFUSED.Error()) {
			return fmt.Errorf("a service without endpoints answers %w", err)
		}
		return nil
	})
	if out, err := program(t, "kubectl", "-n", ns, "exec", "client", "--", "wget", "-qO-", "http://"+address+"/"); err == nil || !strings.Contains(out, "refused") {
		t.Errorf("from a pod, a service without endpoints answers %v %s", err, out)
	}
}

// TestPodToServer reaches the API server from a pod, by its service.
func TestPodToServer(t *testing.T) {
	const ns = "e2e-server"
	namespace(t, ns)
	kubectl(t, "-n", ns, "run", "client", "--image=knarr.local/busybox:latest", "--", "sleep", "3600")
	kubectl(t, "-n", ns, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	says(t, kubectl(t, "-n", ns, "exec", "client", "--", "sh", "-c", "nc -w 3 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null && echo reached"), "reached")
}

// dial connects to a service.
func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
