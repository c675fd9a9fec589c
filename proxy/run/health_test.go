package run

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/proxy/lb"
)

func get(t *testing.T, h http.Handler, path string) (int, map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody))
	body := map[string]any{}
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Errorf("%s: %v in %q", path, err, w.Body)
	}
	return w.Code, body
}

// TestHealth: the proxy is alive before it has done anything, well when it
// has, and ill when a change waits too long. A node that goes is not for new
// connections, though its proxy lives.
func TestHealth(t *testing.T) {
	now := time.Now()
	leaving := &corev1.Node{}
	leaving.Spec.Taints = []corev1.Taint{{Key: "ToBeDeletedByClusterAutoscaler"}}
	for _, c := range []struct {
		name           string
		happens        func(h *health)
		healthz, livez int
	}{
		{"starting", func(h *health) { h.begin(now) }, 503, 200},
		{"never begun", func(h *health) { h.begin(now.Add(-2 * patience)) }, 503, 503},
		{"done", func(h *health) { h.synced(now) }, 200, 200},
		{"done long ago", func(h *health) { h.synced(now.Add(-time.Hour)) }, 200, 200},
		{"busy", func(h *health) { h.synced(now.Add(-time.Hour)); h.begin(now) }, 200, 200},
		{"stuck", func(h *health) { h.synced(now.Add(-time.Hour)); h.begin(now.Add(-2 * patience)); h.begin(now) }, 503, 503},
		{"leaving", func(h *health) { h.synced(now); h.see(leaving) }, 503, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &health{}
			c.happens(h)
			handler := h.handler(newMetrics())
			code, body := get(t, handler, "/healthz")
			if code != c.healthz || body["nodeEligible"] != (c.name != "leaving") {
				t.Errorf("/healthz: %d, %v; want %d", code, body, c.healthz)
			}
			code, body = get(t, handler, "/livez")
			if _, ok := body["nodeEligible"]; code != c.livez || ok || body["lastUpdated"] == nil || body["currentTime"] == nil {
				t.Errorf("/livez: %d, %v; want %d", code, body, c.livez)
			}
		})
	}
}

// freePort is one that nobody else is likely to take before the test does.
func freePort(t *testing.T) uint16 {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return port
}

// TestChecks: a service's health check says whether it has endpoints here, at
// the port that it has now and no other.
func TestChecks(t *testing.T) {
	ctx := t.Context()
	h := &health{}
	h.synced(time.Now())
	cs := checks{health: h, open: map[lb.Owner]*check{}}
	t.Cleanup(func() { cs.close(ctx) })
	owner := lb.Owner{Kind: kindService, Namespace: "ns", Name: "s"}
	one, two := freePort(t), freePort(t)
	ask := func(port uint16) string {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
		if err != nil {
			return "closed"
		}
		body, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Error(err)
		}
		return fmt.Sprintf("%d %s %s", resp.StatusCode, resp.Header.Get("X-Load-Balancing-Endpoint-Weight"), strings.TrimSpace(string(body)))
	}
	step := func(want *lb.Health, atOne, atTwo string) {
		t.Helper()
		cs.want(owner, want)
		if err := cs.apply(ctx); err != nil {
			t.Fatal(err)
		}
		if got := ask(one); got != atOne {
			t.Errorf("first port: %s; want %s", got, atOne)
		}
		if got := ask(two); got != atTwo {
			t.Errorf("second port: %s; want %s", got, atTwo)
		}
	}
	step(&lb.Health{Port: one, Ready: 2}, `200 2 {"service":{"namespace":"ns","name":"s"},"localEndpoints":2,"serviceProxyHealthy":true}`, "closed")
	step(&lb.Health{Port: one}, `503 0 {"service":{"namespace":"ns","name":"s"},"localEndpoints":0,"serviceProxyHealthy":true}`, "closed")
	step(&lb.Health{Port: two, Ready: 1}, "closed", `200 1 {"service":{"namespace":"ns","name":"s"},"localEndpoints":1,"serviceProxyHealthy":true}`)
	h.begin(time.Now().Add(-2 * patience))
	step(&lb.Health{Port: two, Ready: 1}, "closed", `503 1 {"service":{"namespace":"ns","name":"s"},"localEndpoints":1,"serviceProxyHealthy":false}`)
	step(nil, "closed", "closed")
	if len(cs.open) != 0 {
		t.Errorf("%d checks are left", len(cs.open))
	}
}

// TestChecksTaken: a port that another has is an error until it is free, and
// keeps no other service from its own.
func TestChecksTaken(t *testing.T) {
	ctx := t.Context()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	cs := checks{health: &health{}, open: map[lb.Owner]*check{}}
	t.Cleanup(func() { cs.close(ctx) })
	cs.want(lb.Owner{Name: "a"}, &lb.Health{Port: uint16(l.Addr().(*net.TCPAddr).Port)})
	cs.want(lb.Owner{Name: "b"}, &lb.Health{Port: freePort(t)})
	if err := cs.apply(ctx); err == nil {
		t.Error("no error though the port is taken")
	}
	if cs.open[lb.Owner{Name: "b"}].served == 0 {
		t.Error("the other service's port is closed")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cs.apply(ctx); err != nil {
		t.Errorf("the port is free: %v", err)
	}
}

// TestMetrics: these are promised.
func TestMetrics(t *testing.T) {
	m := newMetrics()
	m.healthz.WithLabelValues("200")
	m.livez.WithLabelValues("200")
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "kubeproxy_") {
			got = append(got, f.GetName())
		}
	}
	want := []string{
		"kubeproxy_network_programming_duration_seconds", "kubeproxy_proxy_healthz_total", "kubeproxy_proxy_livez_total",
		"kubeproxy_sync_proxy_rules_duration_seconds", "kubeproxy_sync_proxy_rules_endpoint_changes_total",
		"kubeproxy_sync_proxy_rules_failures_total", "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
		"kubeproxy_sync_proxy_rules_last_timestamp_seconds", "kubeproxy_sync_proxy_rules_service_changes_total",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	w := httptest.NewRecorder()
	m.handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/proxyMode", http.NoBody))
	if w.Body.String() != "ebpf" {
		t.Errorf("mode %q", w.Body)
	}
}
