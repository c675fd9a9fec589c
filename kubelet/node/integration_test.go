//go:build integration

package node

import (
	"context"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"

	"github.com/knarr-dev/knarr/kubelet/node/runtimetest"
)

// TestRealNode keeps a node at the API server of KNARR_TEST_KUBECONFIG.
func TestRealNode(t *testing.T) {
	rt, images := runtimetest.Dial(t)
	path := os.Getenv("KNARR_TEST_KUBECONFIG")
	if path == "" {
		t.Skip("SKIPPED: KNARR_TEST_KUBECONFIG names no kubeconfig of an API server")
	}
	rc, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	rc.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(rc)
	if err != nil {
		t.Fatal(err)
	}
	nodes := client.CoreV1().Nodes()
	remove := func() { _ = nodes.Delete(context.Background(), "integration", metav1.DeleteOptions{}) }
	remove()
	t.Cleanup(remove)
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	ready, done, start := make(chan *corev1.Node, 100), make(chan error, 1), time.Now()
	go func() {
		done <- Run(ctx, Config{
			Settings: Settings{Name: "integration", Version: "v1.36.3", Port: 10250, MaxPods: 110, MaxImages: 50},
			Client:   client, Recorder: record.NewFakeRecorder(100), Runtime: rt, Images: images, Machine: machine{},
			Addresses: func() ([]corev1.NodeAddress, error) {
				return []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}, {Type: corev1.NodeInternalIP, Address: "::1"}}, nil
			},
			Disk: func() (int64, error) { return 1 << 30, nil },
			Observe: func(n *corev1.Node) {
				if c := condition(&n.Status, corev1.NodeReady); c != nil && c.Status == corev1.ConditionTrue {
					ready <- n
				}
			},
		})
	}()
	select {
	case n := <-ready:
		t.Logf("ready after %v", time.Since(start))
		if time.Since(start) > time.Second || len(n.Status.Images) == 0 || len(n.Status.Addresses) != 2 {
			t.Errorf("after %v %+v", time.Since(start), n.Status)
		}
	case <-ctx.Done():
		t.Fatal("not ready")
	}
	if _, err := nodes.Patch(ctx, "integration", "application/merge-patch+json", []byte(`{"status":{"capacity":{"scheduling.k8s.io/foo":"5"}}}`), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	for n := range ready {
		if q := n.Status.Allocatable["scheduling.k8s.io/foo"]; q.Value() == 5 {
			break
		}
	}
	for l, err := client.CoordinationV1().Leases("kube-node-lease").Get(ctx, "integration", metav1.GetOptions{}); ; {
		if err == nil && len(l.OwnerReferences) == 1 {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatal("no lease")
		case <-time.After(50 * time.Millisecond):
		}
		l, err = client.CoordinationV1().Leases("kube-node-lease").Get(ctx, "integration", metav1.GetOptions{})
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
