package cluster

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/rest"
)

// A server answers what a cluster would of the little that is asked of it.
type server struct {
	mu         sync.Mutex
	ready      string // what /readyz says, empty where it is
	nodes      []corev1.Node
	namespaces []string
	webhooks   map[string]string // the namespace that each sends to
	deleted    []string
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	if r.Method == http.MethodDelete {
		s.deleted = append(s.deleted, name)
		s.namespaces = slices.DeleteFunc(s.namespaces, func(ns string) bool { return ns == name })
		answer(w, metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Success"})
		return
	}
	switch {
	case r.URL.Path == "/version":
		answer(w, version.Info{GitVersion: "v1.2.3"})
	case r.URL.Path == "/readyz" && s.ready != "":
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = w.Write([]byte(s.ready))
	case r.URL.Path == "/readyz":
		_, _ = w.Write([]byte("ok"))
	case r.URL.Path == "/api/v1/nodes":
		answer(w, corev1.NodeList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NodeList"}, Items: s.nodes})
	case r.URL.Path == "/api/v1/namespaces":
		list := corev1.NamespaceList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NamespaceList"}}
		for _, ns := range s.namespaces {
			list.Items = append(list.Items, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
		}
		if r.URL.Query().Get("labelSelector") != ownLabel {
			http.Error(w, "all namespaces?", http.StatusBadRequest)
			return
		}
		answer(w, list)
	case strings.HasSuffix(r.URL.Path, "/validatingwebhookconfigurations"):
		var items []any
		for name, ns := range s.webhooks {
			hook := map[string]any{"clientConfig": map[string]any{"service": map[string]any{"namespace": ns}}}
			items = append(items, map[string]any{"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": map[string]any{"name": name}, "webhooks": []any{hook}})
		}
		answer(w, map[string]any{"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfigurationList", "items": items})
	default:
		w.WriteHeader(http.StatusNotFound)
		answer(w, metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Reason: metav1.StatusReasonNotFound, Code: http.StatusNotFound})
	}
}

func answer(w http.ResponseWriter, obj any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(obj)
}

func start(t *testing.T, s *server) *Cluster {
	t.Helper()
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	c, err := open(&rest.Config{Host: h.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func node(name string, ready corev1.ConditionStatus, taints ...corev1.Taint) corev1.Node {
	return corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{Taints: taints},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready, Reason: "KubeletNotReady", Message: "no network"}}},
	}
}

func TestReady(t *testing.T) {
	taint := corev1.Taint{Key: "broken", Effect: corev1.TaintEffectNoSchedule}
	for _, c := range []struct {
		name  string
		s     *server
		nodes int
		err   []string
	}{
		{"ready", &server{nodes: []corev1.Node{node("a", "True"), node("b", "True")}}, 2, nil},
		{"a node is not", &server{nodes: []corev1.Node{node("a", "True"), node("b", "False")}}, 1, []string{"node b is not ready: KubeletNotReady: no network"}},
		{"a node is tainted", &server{nodes: []corev1.Node{node("a", "True", taint)}}, 0, []string{"node a has the taint broken:NoSchedule"}},
		{"a node is silent", &server{nodes: []corev1.Node{{ObjectMeta: metav1.ObjectMeta{Name: "a"}}}}, 0, []string{"node a has not said"}},
		{"no nodes", &server{}, 0, []string{"there are no nodes"}},
		{"server is not", &server{ready: "[+]ping ok\n[-]etcd failed: reason withheld\n", nodes: []corev1.Node{node("a", "False")}}, 0, []string{"/readyz: [-]etcd failed", "node a is not ready"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			nodes, err := start(t, c.s).Ready(t.Context())
			if nodes != c.nodes || (err != nil) != (len(c.err) > 0) {
				t.Errorf("%d nodes, %v", nodes, err)
			}
			for _, want := range c.err {
				if err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("%v does not say %q", err, want)
				}
			}
		})
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	c, err := open(&rest.Config{Host: gone.URL})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("of a server that is not there: %v", err)
	}
}

// What a run made is removed, and what was there before it stays.
func TestClean(t *testing.T) {
	s := &server{namespaces: []string{"others-1"}, webhooks: map[string]string{"ours": "e2e-2", "theirs": "others-1"}}
	c := start(t, s)
	if err := c.Remember(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := c.Clean(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("of nothing it cleaned %v, %v", left, err)
	}
	s.mu.Lock()
	s.namespaces = append(s.namespaces, "e2e-2", "e2e-3")
	s.mu.Unlock()
	left, err := c.Clean(t.Context())
	if err != nil || strings.Join(left, " ") != "e2e-2 e2e-3" {
		t.Errorf("cleaned %v, %v", left, err)
	}
	if got := strings.Join(s.deleted, " "); got != "ours e2e-2 e2e-3" {
		t.Errorf("deleted %s", got)
	}
}
