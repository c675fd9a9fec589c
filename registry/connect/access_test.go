package connect_test

import (
	"io"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/assembly"
	"github.com/knarr-dev/knarr/registry/registrytest"
)

// as is a cluster for another user, who may do what verbs say with exec.
func (c *cluster) as(user registry.User, verbs ...string) *cluster {
	c.t.Helper()
	name := metav1.ObjectMeta{Name: strings.ReplaceAll(user.Name, ":", "-")}
	role := &rbacv1.ClusterRole{ObjectMeta: name, Rules: []rbacv1.PolicyRule{{Verbs: verbs, APIGroups: []string{""}, Resources: []string{"pods/exec"}}}}
	if _, err := c.RbacV1().ClusterRoles().Create(c.t.Context(), role, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: name, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: user.Name}},
	}
	if _, err := c.RbacV1().ClusterRoleBindings().Create(c.t.Context(), binding, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	other := *c
	other.config = c.Client(user)
	var err error
	if other.Interface, err = kubernetes.NewForConfig(other.config); err != nil {
		c.t.Fatal(err)
	}
	return &other
}

// To run something in a pod is more than to look at it, however it is asked for.
func TestReader(t *testing.T) {
	c := start(t)
	c.pod("p", nil, "c")
	both := &corev1.PodExecOptions{Stdout: true, Stderr: true, Command: []string{"both"}}
	for _, x := range []struct {
		name  string
		verbs []string
		want  string
	}{
		{"reader", []string{"get"}, `pods "p" is forbidden: User "reader" cannot create resource "pods/exec" in API group "" in the namespace "default"`},
		{"writer", []string{"get", "create"}, ""},
		{"nobody", []string{"list"}, `pods "p" is forbidden: User "nobody" cannot get resource "pods/exec" in API group "" in the namespace "default"`},
	} {
		user := c.as(registry.User{Name: x.name, Groups: []string{registry.Authenticated}}, x.verbs...)
		out, _, err := user.run(executors["websocket"], c.subresource("p", "exec", both), streamOut())
		switch {
		case x.want == "" && (err != nil || out != "to out"):
			t.Errorf("%s: %q %v", x.name, out, err)
		case x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)):
			t.Errorf("%s: got %v, want %s", x.name, err, x.want)
		}
	}
}

// Admission sees connections as well.
func TestAdmission(t *testing.T) {
	c := start(t, registrytest.With(func(cfg *assembly.Config) { cfg.AdmissionOn = append(cfg.AdmissionOn, "NodeRestriction") }))
	c.pod("p", nil, "c")
	node := c.as(registry.User{Name: "system:node:n", Groups: []string{"system:nodes", registry.Authenticated}}, "get", "create")
	at := c.subresource("p", "exec", &corev1.PodExecOptions{Stdout: true, Command: []string{"both"}})
	_, _, err := node.run(executors["spdy"], at, streamOut())
	if err == nil || !strings.Contains(err.Error(), `unexpected pod subresource "exec", only 'status' and 'eviction' are allowed`) {
		t.Errorf("got %v", err)
	}
}

// Clients fall back to what the server can do.
func TestFallback(t *testing.T) {
	c := start(t)
	c.pod("p", nil, "c")
	both := &corev1.PodExecOptions{Stdout: true, Stderr: true, Command: []string{"both"}}
	old := func(_ *rest.Config, at string) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutorForProtocols(c.config, "GET", at, "unknown.k8s.io")
	}
	at := c.subresource("p", "exec", both)
	first, err := old(c.config, at.String())
	if err != nil {
		t.Fatal(err)
	}
	second, err := executors["spdy"](c.config, at)
	if err != nil {
		t.Fatal(err)
	}
	e, err := remotecommand.NewFallbackExecutor(first, second, func(error) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: &out, Stderr: io.Discard}); err != nil || out.String() != "to out" {
		t.Errorf("%q %v", out.String(), err)
	}
}

// A kubelet that understands WebSockets gets them as they are.
func TestDeclared(t *testing.T) {
	c := start(t)
	c.pod("p", nil, "c")
	both := &corev1.PodExecOptions{Stdout: true, Stderr: true, Command: []string{"both"}}
	const path = "/exec/default/p/c?command=both&error=1&output=1"
	if _, _, err := c.run(executors["websocket"], c.subresource("p", "exec", both), streamOut()); err != nil || c.kubelet.last() != "SPDY/3.1 "+path {
		t.Errorf("translated: %q %v", c.kubelet.last(), err)
	}
	node, err := c.CoreV1().Nodes().Get(t.Context(), "n", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node.Status.DeclaredFeatures = []string{"ExtendWebSocketsToKubelet"}
	if _, err := c.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	// The one here does not know this protocol of theirs, and says so.
	if _, _, err := c.run(executors["websocket"], c.subresource("p", "exec", both), streamOut()); err == nil || c.kubelet.last() != "websocket "+path {
		t.Errorf("passed on: %q %v", c.kubelet.last(), err)
	}
}

// Streams end with the server.
func TestStop(t *testing.T) {
	for name, e := range executors {
		t.Run(name, func(t *testing.T) {
			c := start(t)
			c.pod("p", nil, "c")
			x, err := e(c.config, c.subresource("p", "exec", &corev1.PodExecOptions{Stdin: true, Stdout: true, Command: []string{"linger"}}))
			if err != nil {
				t.Fatal(err)
			}
			begun, ended := make(chan struct{}, 1), make(chan error, 1)
			stdin, end := io.Pipe() // on which nothing comes
			defer func() { _ = end.Close() }()
			go func() {
				ended <- x.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: stdin, Stdout: writer(func() { begun <- struct{}{} })})
			}()
			select {
			case <-begun:
			case err := <-ended:
				t.Fatal(err)
			}
			c.Handler.Stop()
			err = <-ended // which may be nil: it looks as if it had ended by itself
			t.Log(err)
			<-c.kubelet.abandoned
		})
	}
}
