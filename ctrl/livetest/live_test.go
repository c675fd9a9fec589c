//go:build integration

// Package livetest runs the controllers against a real API server, which must
// have no other controllers, and compares what they make with what stock
// controllers make of the same. The server is one in the test's process, if
// no other is named.
package livetest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/knarr-dev/knarr/ctrl/all"
	"github.com/knarr-dev/knarr/ctrl/engine"
	"github.com/knarr-dev/knarr/ctrl/engine/sweep"
	"github.com/knarr-dev/knarr/registry/registrytest"
)

// The kubeconfigs of an API server without controllers, and of one with stock
// controllers to compare with.
const (
	ours  = "KNARR_TEST_KUBECONFIG"
	stock = "KNARR_TEST_STOCK_KUBECONFIG"
)

// config is the server under test: ours is made where none is named; without a
// stock one the test is skipped, loudly.
func config(t *testing.T, env string) *rest.Config {
	if os.Getenv(env) == "" && env == ours {
		t.Setenv(ours, serve(t))
	}
	path := os.Getenv(env)
	if path == "" {
		t.Skipf("SKIPPED: %s names no kubeconfig of an API server to test against", env)
	}
	c, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	c.QPS = -1
	return c
}

// serve runs an API server until the test ends, and is its kubeconfig.
func serve(t *testing.T) (path string) {
	c := registrytest.Start(t, registrytest.TLS, registrytest.Services("10.96.0.0/16"))
	file := clientcmdapi.NewConfig()
	file.CurrentContext = "test"
	file.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	file.Clusters["test"] = &clientcmdapi.Cluster{Server: c.Host, InsecureSkipTLSVerify: c.Insecure}
	file.AuthInfos["test"] = &clientcmdapi.AuthInfo{Token: c.BearerToken}
	path = filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*file, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// as is the client of a controller, which may do what its role says, or that
// of all, which may do everything.
func as(t *testing.T, c *rest.Config, account string) kubernetes.Interface {
	if account != "" {
		c = rest.CopyConfig(c)
		c.Impersonate = rest.ImpersonationConfig{
			UserName: "system:serviceaccount:kube-system:" + account,
			Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"},
		}
	}
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Error(err)
	}
	return client
}

// start runs all controllers until the test ends.
func start(t *testing.T) (*kubernetes.Clientset, *prometheus.Registry) {
	c := config(t, ours)
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	meta, err := metadata.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	reg, tally := prometheus.NewRegistry(), &sweep.Tally{}
	go func() {
		done <- engine.Run(ctx, engine.Config{
			Controllers: all.List(all.Options{RootCA: func() string { return "PEM" }, Counts: tally.Counts}),
			Loops: []engine.Loop{sweep.Loop(sweep.Config{
				Metadata:  func(string) metadata.Interface { return meta },
				Discovery: client.Discovery(), Garbage: true, Namespaces: true, Tally: tally,
			}), sweep.Types(client.Discovery())},
			Informers: informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(engine.Trim)),
			Client:    func(account string) kubernetes.Interface { return as(t, c, account) },
			Metrics:   reg,
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return client, reg
}

// kubectl runs the kubectl on the path, which must be a stock one.
func kubectl(t *testing.T, env string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("SKIPPED: no kubectl on the path")
	}
	out, err := exec.Command(path, append([]string{"--kubeconfig", os.Getenv(env)}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestHold only runs the controllers, for looking at by hand.
func TestHold(t *testing.T) {
	if os.Getenv("KNARR_TEST_HOLD") == "" {
		t.Skip("SKIPPED: KNARR_TEST_HOLD is not set")
	}
	start(t)
	<-t.Context().Done()
}

func web(replicas int32, image string) *appsv1.Deployment {
	labels := map[string]string{"app": "web"}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					TerminationGracePeriodSeconds: new(int64(1)),
					Containers:                    []corev1.Container{{Name: "c", Image: image, Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}},
				},
			},
		},
	}
}

// complete is nil when the deployment has n pods of its newest template and no other.
func complete(ctx context.Context, client *kubernetes.Clientset, ns string, n int32) error {
	d, err := client.AppsV1().Deployments(ns).Get(ctx, "web", metav1.GetOptions{})
	if err != nil {
		return err
	}
	s := d.Status
	if s.ObservedGeneration != d.Generation || s.Replicas != n || s.UpdatedReplicas != n || s.AvailableReplicas != n {
		return fmt.Errorf("generation %d, status %+v", d.Generation, s)
	}
	return nil
}

// A bound watches the pods of a namespace, and notes the most and the fewest
// ready ones at any moment.
type bound struct {
	mu          sync.Mutex
	pods        map[string]corev1.Pod
	most, least int
}

func watchBounds(t *testing.T, client *kubernetes.Clientset, ns string) *bound {
	b := &bound{pods: map[string]corev1.Pod{}}
	list, err := client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list.Items {
		b.pods[p.Name] = p
	}
	w, err := client.CoreV1().Pods(ns).Watch(t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	b.note()
	b.least = b.ready()
	go func() {
		for e := range w.ResultChan() {
			p, ok := e.Object.(*corev1.Pod)
			if !ok {
				continue
			}
			b.mu.Lock()
			b.pods[p.Name] = *p
			if e.Type == "DELETED" {
				delete(b.pods, p.Name)
			}
			b.note()
			b.mu.Unlock()
		}
	}()
	return b
}

func (b *bound) ready() (n int) {
	for _, p := range b.pods {
		if p.DeletionTimestamp == nil && p.Status.PodIP != "" {
			n++
		}
	}
	return n
}

func (b *bound) note() {
	alive := 0
	for _, p := range b.pods {
		if p.DeletionTimestamp == nil {
			alive++
		}
	}
	b.most = max(b.most, alive)
	b.least = min(b.least, b.ready())
}

func (b *bound) check(t *testing.T, most, least int) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.most > most || b.least < least {
		t.Errorf("at some moment there were %d pods and at some only %d ready; want at most %d and at least %d", b.most, b.least, most, least)
	}
	t.Logf("at most %d pods (of %d), at least %d ready (of %d)", b.most, most, b.least, least)
}

func TestDeployment(t *testing.T) {
	client, _ := start(t)
	newHollow(t, client, "live-a", nil)
	ns := space(t, client)
	ctx := t.Context()

	created := time.Now()
	if _, err := client.AppsV1().Deployments(ns).Create(ctx, web(3, "i:1"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "three pods", func() error {
		pods, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
		if err == nil && len(pods.Items) != 3 {
			err = fmt.Errorf("%d pods", len(pods.Items))
		}
		return err
	})
	t.Logf("three pods %v after the request for the deployment", time.Since(created))
	eventually(t, 5*time.Second, "complete", func() error { return complete(ctx, client, ns, 3) })

	kubectl(t, ours, "-n", ns, "scale", "deployment/web", "--replicas=8")
	eventually(t, 5*time.Second, "scaled up", func() error { return complete(ctx, client, ns, 8) })
	b := watchBounds(t, client, ns)
	kubectl(t, ours, "-n", ns, "set", "image", "deployment/web", "c=i:2")
	kubectl(t, ours, "-n", ns, "rollout", "status", "deployment/web", "--timeout=20s")
	eventually(t, 5*time.Second, "rolled", func() error { return complete(ctx, client, ns, 8) })
	b.check(t, 10, 6) // 25 % of 8 more, and 25 % fewer

	if h := kubectl(t, ours, "-n", ns, "rollout", "history", "deployment/web"); !strings.Contains(h, "1 ") || !strings.Contains(h, "2 ") {
		t.Errorf("history:\n%s", h)
	}
	kubectl(t, ours, "-n", ns, "rollout", "undo", "deployment/web")
	kubectl(t, ours, "-n", ns, "rollout", "status", "deployment/web", "--timeout=20s")
	d, err := client.AppsV1().Deployments(ns).Get(ctx, "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if image, rev := d.Spec.Template.Spec.Containers[0].Image, d.Annotations["deployment.kubernetes.io/revision"]; image != "i:1" || rev != "3" {
		t.Errorf("undone: image %s in revision %s", image, rev)
	}

	kubectl(t, ours, "-n", ns, "rollout", "pause", "deployment/web")
	kubectl(t, ours, "-n", ns, "set", "image", "deployment/web", "c=i:3")
	eventually(t, 5*time.Second, "pause noticed", func() error {
		d, err := client.AppsV1().Deployments(ns).Get(ctx, "web", metav1.GetOptions{})
		if err == nil && (d.Status.ObservedGeneration != d.Generation || d.Status.UpdatedReplicas != 0) {
			err = fmt.Errorf("status %+v", d.Status)
		}
		return err
	})
	sets, err := client.AppsV1().ReplicaSets(ns).List(ctx, metav1.ListOptions{})
	if err != nil || len(sets.Items) != 2 {
		t.Errorf("while it is paused there are %d sets (%v)", len(sets.Items), err)
	}
	kubectl(t, ours, "-n", ns, "rollout", "resume", "deployment/web")
	kubectl(t, ours, "-n", ns, "rollout", "status", "deployment/web", "--timeout=20s")
	eventually(t, 5*time.Second, "rolled on", func() error { return complete(ctx, client, ns, 8) })
}
