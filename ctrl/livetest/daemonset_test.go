//go:build integration

package livetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// newPlaced runs hollow nodes that take the pods that ask for them by name.
func newPlaced(t *testing.T, client *kubernetes.Clientset, nodes ...string) {
	ctx, stop := context.WithCancel(context.Background())
	by := map[string]*hollow{}
	for _, n := range nodes {
		by[n] = &hollow{t: t, client: client, node: n}
		by[n].register(ctx)
	}
	sync := func(o any) {
		p := o.(*corev1.Pod)
		node := p.Spec.NodeName
		if node == "" && p.Spec.Affinity != nil {
			node = p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchFields[0].Values[0]
		}
		if h := by[node]; h != nil {
			go h.sync(ctx, p)
		}
	}
	f := informers.NewSharedInformerFactory(client, 0)
	if _, err := f.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: sync, UpdateFunc: func(_, o any) { sync(o) },
	}); err != nil {
		t.Fatal(err)
	}
	f.StartWithContext(ctx)
	t.Cleanup(func() {
		stop()
		f.Shutdown()
		for _, n := range nodes {
			if err := client.CoreV1().Nodes().Delete(context.Background(), n, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				t.Error(err)
			}
		}
	})
}

func daemonOf(image string) *appsv1.DaemonSet {
	labels := map[string]string{"app": "log"}
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "log"},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					NodeSelector: map[string]string{"log": "yes"}, TerminationGracePeriodSeconds: new(int64(1)),
					Containers: []corev1.Container{{Name: "c", Image: image}},
				},
			},
		},
	}
}

// covers reports how the set and its pods differ from an image on each of n nodes.
func covers(ctx context.Context, client kubernetes.Interface, ns, image string, n int32) error {
	d, err := client.AppsV1().DaemonSets(ns).Get(ctx, "log", metav1.GetOptions{})
	if err != nil {
		return err
	}
	s := d.Status
	if s.ObservedGeneration != d.Generation || s.DesiredNumberScheduled != n || s.CurrentNumberScheduled != n || s.UpdatedNumberScheduled != n || s.NumberAvailable != n || s.NumberMisscheduled != 0 {
		return fmt.Errorf("generation %d, status %+v", d.Generation, s)
	}
	pods, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	nodes := map[string]bool{}
	for _, p := range pods.Items {
		if p.Spec.Containers[0].Image != image {
			return fmt.Errorf("pod %s of %s", p.Name, p.Spec.Containers[0].Image)
		}
		nodes[p.Spec.NodeName] = true
	}
	if len(nodes) != int(n) || len(pods.Items) != int(n) {
		return fmt.Errorf("%d pods on %v", len(pods.Items), nodes)
	}
	return nil
}

// TestDaemonSet has a set follow the labels of nodes, roll with and without
// surge, be undone without a pod lost that need not be, and replace a failed one.
func TestDaemonSet(t *testing.T) {
	client, _ := start(t)
	newPlaced(t, client, "live-d1", "live-d2", "live-d3")
	ns, ctx := space(t, client), t.Context()
	sets, pods := client.AppsV1().DaemonSets(ns), client.CoreV1().Pods(ns)
	becomes := func(what, image string, n int32) {
		t.Helper()
		eventually(t, 10*time.Second, what, func() error { return covers(ctx, client, ns, image, n) })
	}
	label := func(node, value string) {
		t.Helper()
		if _, err := client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"labels":{"log":%s}}}`, value), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	change := func(patch string) {
		t.Helper()
		if _, err := sets.Patch(ctx, "log", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := sets.Create(ctx, daemonOf("i:1"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	label("live-d1", `"yes"`)
	label("live-d2", `"yes"`)
	becomes("two nodes", "i:1", 2)
	label("live-d3", `"yes"`)
	becomes("three nodes", "i:1", 3)

	b := watchBounds(t, client, ns)
	kubectl(t, ours, "-n", ns, "set", "image", "daemonset/log", "c=i:2")
	kubectl(t, ours, "-n", ns, "rollout", "status", "daemonset/log", "--timeout=20s")
	becomes("rolled", "i:2", 3)
	b.check(t, 3, 2)

	change(`{"spec":{"updateStrategy":{"rollingUpdate":{"maxUnavailable":0,"maxSurge":2}}}}`)
	b = watchBounds(t, client, ns)
	kubectl(t, ours, "-n", ns, "rollout", "undo", "daemonset/log")
	becomes("undone", "i:1", 3)
	b.check(t, 5, 3)
	revs, err := client.AppsV1().ControllerRevisions(ns).List(ctx, metav1.ListOptions{})
	if err != nil || len(revs.Items) != 2 || max(revs.Items[0].Revision, revs.Items[1].Revision) != 3 {
		t.Errorf("revisions %v, %v", revs.Items, err)
	}

	label("live-d3", "null")
	becomes("two nodes again", "i:1", 2)
	list, err := pods.List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	failed := list.Items[0]
	failed.Status.Phase, failed.Status.Conditions = corev1.PodFailed, nil
	if _, err := pods.UpdateStatus(ctx, &failed, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the failed one is gone", func() error {
		if _, err := pods.Get(ctx, failed.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("still there (%w)", err)
		}
		return nil
	})
	becomes("well again", "i:1", 2)
}
