//go:build integration

package livetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// TestPropagation deletes a deployment in each of the three ways, and looks
// what becomes of its sets and pods.
func TestPropagation(t *testing.T) {
	client, _ := start(t)
	newHollow(t, client, "live-b", nil)
	for _, how := range []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground, metav1.DeletePropagationOrphan} {
		t.Run(string(how), func(t *testing.T) {
			ns, ctx := space(t, client), t.Context()
			if _, err := client.AppsV1().Deployments(ns).Create(ctx, web(3, "i:1"), metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			eventually(t, 10*time.Second, "complete", func() error { return complete(ctx, client, ns, 3) })
			deleted := time.Now()
			if err := client.AppsV1().Deployments(ns).Delete(ctx, "web", metav1.DeleteOptions{PropagationPolicy: &how}); err != nil {
				t.Fatal(err)
			}
			want := 0
			if how == metav1.DeletePropagationOrphan {
				want = 3
			}
			eventually(t, 5*time.Second, "the owner goes", func() error {
				_, err := client.AppsV1().Deployments(ns).Get(ctx, "web", metav1.GetOptions{})
				if apierrors.IsNotFound(err) {
					return nil
				}
				return fmt.Errorf("still there (%w)", err)
			})
			if how == metav1.DeletePropagationForeground {
				if _, pods := left(t, client, ns); pods > 0 {
					t.Errorf("the owner is gone and %d pods are not", pods)
				}
			}
			eventually(t, 5*time.Second, "what it owned", func() error {
				if _, pods := left(t, client, ns); pods != want {
					return fmt.Errorf("%d pods, want %d", pods, want)
				}
				return nil
			})
			t.Logf("settled after %v", time.Since(deleted))
			sets, err := client.AppsV1().ReplicaSets(ns).List(ctx, metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, rs := range sets.Items {
				if how != metav1.DeletePropagationOrphan || len(rs.OwnerReferences) > 0 {
					t.Errorf("set %s is left with owners %v", rs.Name, rs.OwnerReferences)
				}
			}
		})
	}
}

func left(t *testing.T, client *kubernetes.Clientset, ns string) (sets, pods int) {
	t.Helper()
	s, err := client.AppsV1().ReplicaSets(ns).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return len(s.Items), len(p.Items)
}

// TestNamespace deletes a namespace in which a pod has a finalizer: as long as
// it is there, nothing else goes, and the conditions tell.
func TestNamespace(t *testing.T) {
	client, _ := start(t)
	ns, ctx := space(t, client), t.Context()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "held", Finalizers: []string{"example.com/hold"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	if _, err := client.CoreV1().Pods(ns).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kept"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := client.CoreV1().Namespaces().Delete(ctx, ns, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "five conditions", func() error {
		got, err := client.CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(got.Status.Conditions) != 5 {
			return fmt.Errorf("%d conditions", len(got.Status.Conditions))
		}
		for _, c := range got.Status.Conditions {
			if c.Type == corev1.NamespaceFinalizersRemaining && !strings.Contains(c.Message, "example.com/hold in 1 resource instances") {
				return fmt.Errorf("said is %q", c.Message)
			}
		}
		return nil
	})
	if _, err := client.CoreV1().ConfigMaps(ns).Get(ctx, "kept", metav1.GetOptions{}); err != nil {
		t.Error("the config map went before the pod:", err)
	}
	freed := time.Now()
	if _, err := client.CoreV1().Pods(ns).Patch(ctx, "held", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the namespace goes", func() error {
		if _, err := client.CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("still there (%w)", err)
		}
		return nil
	})
	t.Logf("gone %v after the last finalizer", time.Since(freed))
}

// TestService makes a service, takes its pods away and gives them back.
func TestService(t *testing.T) {
	client, _ := start(t)
	newHollow(t, client, "live-c", nil)
	ns, ctx := space(t, client), t.Context()
	if _, err := client.AppsV1().Deployments(ns).Create(ctx, web(2, "i:1"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Services(ns).Create(ctx, service("web"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	published := func(n int) func() error {
		return func() error {
			ep, err := client.CoreV1().Endpoints(ns).Get(ctx, "web", metav1.GetOptions{})
			if err != nil {
				return err
			}
			slices, err := client.DiscoveryV1().EndpointSlices(ns).List(ctx, metav1.ListOptions{})
			if err != nil {
				return err
			}
			inEndpoints, inSlices := 0, 0
			for _, s := range ep.Subsets {
				inEndpoints += len(s.Addresses)
			}
			for _, s := range slices.Items {
				for _, e := range s.Endpoints {
					if *e.Conditions.Ready {
						inSlices++
					}
				}
			}
			if inEndpoints != n || inSlices != n || len(slices.Items) != 1 {
				return fmt.Errorf("%d in endpoints, %d in %d slices", inEndpoints, inSlices, len(slices.Items))
			}
			return nil
		}
	}
	eventually(t, 5*time.Second, "two endpoints", published(2))
	kubectl(t, ours, "-n", ns, "scale", "deployment/web", "--replicas=0")
	eventually(t, 5*time.Second, "no endpoints", published(0))
	kubectl(t, ours, "-n", ns, "scale", "deployment/web", "--replicas=4")
	eventually(t, 5*time.Second, "four endpoints", published(4))
	if err := client.CoreV1().Services(ns).Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "nothing is left", func() error {
		slices, err := client.DiscoveryV1().EndpointSlices(ns).List(ctx, metav1.ListOptions{})
		if err == nil && len(slices.Items) > 0 {
			err = fmt.Errorf("%d slices", len(slices.Items))
		}
		return err
	})
}

func service(name string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": "a"}},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Name: "http", Port: 80}, {Name: "alt", Port: 81}}},
	}
}

// TestNode lets a node fall silent beside one that lives: it is tainted, its
// pod is not ready, and goes when it has borne that for as long as it would.
func TestNode(t *testing.T) {
	if testing.Short() {
		t.Skip("takes over a minute")
	}
	client, _ := start(t)
	newHollow(t, client, "live-d", nil)
	ns, ctx := space(t, client), t.Context()
	silent := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "live-silent", Labels: map[string]string{corev1.LabelTopologyZone: "z1"}}}
	silent, err := client.CoreV1().Nodes().Create(ctx, silent, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.CoreV1().Nodes().Delete(context.Background(), silent.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	alive := fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":%q}]}}`, time.Now().UTC().Format(time.RFC3339))
	if _, err := client.CoreV1().Nodes().Patch(ctx, silent.Name, types.StrategicMergePatchType, []byte(alive), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "there"},
		Spec: corev1.PodSpec{
			NodeName: silent.Name, Containers: []corev1.Container{{Name: "c", Image: "i"}}, TerminationGracePeriodSeconds: new(int64(1)),
			Tolerations: []corev1.Toleration{{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(5))}},
		},
	}
	if _, err := client.CoreV1().Pods(ns).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ready := `{"status":{"phase":"Running","podIP":"10.8.0.1","podIPs":[{"ip":"10.8.0.1"}],"conditions":[{"type":"Ready","status":"True"}]}}`
	if _, err := client.CoreV1().Pods(ns).Patch(ctx, "there", types.StrategicMergePatchType, []byte(ready), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	eventually(t, 80*time.Second, "the taint", func() error {
		n, err := client.CoreV1().Nodes().Get(ctx, silent.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		var keys []string
		for _, taint := range n.Spec.Taints {
			keys = append(keys, taint.Key+":"+string(taint.Effect))
		}
		slices.Sort(keys)
		got := strings.Join(keys, " ")
		if got != "node.kubernetes.io/unreachable:NoExecute node.kubernetes.io/unreachable:NoSchedule" {
			return fmt.Errorf("taints %q", got)
		}
		return nil
	})
	t.Logf("tainted after %v", time.Since(start))
	p, err := client.CoreV1().Pods(ns).Get(ctx, "there", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status != corev1.ConditionFalse {
			t.Errorf("the pod is said to be ready: %+v", c)
		}
	}
	eventually(t, 15*time.Second, "the eviction", func() error {
		p, err := client.CoreV1().Pods(ns).Get(ctx, "there", metav1.GetOptions{})
		if err == nil && p.DeletionTimestamp == nil {
			err = fmt.Errorf("conditions %+v", p.Status.Conditions)
		}
		return err
	})
	if err := client.CoreV1().Pods(ns).Delete(ctx, "there", metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err != nil {
		t.Fatal(err)
	}
}
