//go:build integration

package livetest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

func statefulOf(replicas int32, image string) *appsv1.StatefulSet {
	labels := map[string]string{"app": "db"}
	return &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "db"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &replicas, ServiceName: "db", Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{TerminationGracePeriodSeconds: new(int64(1)), Containers: []corev1.Container{{Name: "c", Image: image}}},
			},
		},
	}
}

// images are those of the pods of a namespace, by the pods' names.
func images(ctx context.Context, client kubernetes.Interface, ns string) (map[string]string, error) {
	pods, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, p := range pods.Items {
		out[p.Name] = p.Spec.Containers[0].Image
	}
	return out, nil
}

// is reports how the set and the images of its pods differ from what they should be.
func is(ctx context.Context, client kubernetes.Interface, ns string, want ...string) error {
	s, err := client.AppsV1().StatefulSets(ns).Get(ctx, "db", metav1.GetOptions{})
	if err != nil {
		return err
	}
	n := int32(len(want))
	if st := s.Status; st.ObservedGeneration != s.Generation || st.Replicas != n || st.ReadyReplicas != n || st.AvailableReplicas != n {
		return fmt.Errorf("generation %d, status %+v", s.Generation, st)
	}
	got, err := images(ctx, client, ns)
	if err != nil {
		return err
	}
	if len(got) != len(want) {
		return fmt.Errorf("pods %v", got)
	}
	for i, image := range want {
		if got[fmt.Sprintf("db-%d", i)] != image {
			return fmt.Errorf("pods %v", got)
		}
	}
	return nil
}

// order notes the pods of a namespace in the order in which they were created and deleted.
func order(t *testing.T, client kubernetes.Interface, ns string) <-chan string {
	w, err := client.CoreV1().Pods(ns).Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	out := make(chan string, 1000)
	go func() {
		for e := range w.ResultChan() {
			if p, ok := e.Object.(*corev1.Pod); ok && e.Type != "MODIFIED" {
				out <- map[bool]string{true: "+", false: "-"}[e.Type == "ADDED"] + p.Name
			}
		}
	}()
	return out
}

// next are the next n that order notes.
func next(t *testing.T, seen <-chan string, n int) (out []string) {
	t.Helper()
	for range n {
		select {
		case s := <-seen:
			out = append(out, s)
		case <-time.After(10 * time.Second):
			t.Fatalf("no more than %v", out)
		}
	}
	return out
}

// TestStatefulSet has a set come up in order, roll with a partition, be
// undone, lose a pod and shrink.
func TestStatefulSet(t *testing.T) {
	client, _ := start(t)
	newHollow(t, client, "live-stateful", nil)
	ns, ctx := space(t, client), t.Context()
	sets, seen := client.AppsV1().StatefulSets(ns), order(t, client, ns)
	change := func(f func(*appsv1.StatefulSet)) {
		t.Helper()
		eventually(t, 5*time.Second, "update", func() error {
			s, err := sets.Get(ctx, "db", metav1.GetOptions{})
			if err != nil {
				return err
			}
			f(s)
			_, err = sets.Update(ctx, s, metav1.UpdateOptions{})
			return err
		})
	}
	becomes := func(what string, images ...string) {
		t.Helper()
		eventually(t, 10*time.Second, what, func() error { return is(ctx, client, ns, images...) })
	}
	moved := func(want ...string) {
		t.Helper()
		if got := next(t, seen, len(want)); !slices.Equal(got, want) {
			t.Errorf("pods came and went as %v, not %v", got, want)
		}
	}
	if _, err := sets.Create(ctx, statefulOf(3, "i:1"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	becomes("three pods", "i:1", "i:1", "i:1")
	moved("+db-0", "+db-1", "+db-2")

	change(func(s *appsv1.StatefulSet) {
		s.Spec.UpdateStrategy.RollingUpdate.Partition = new(int32(2))
		s.Spec.Template.Spec.Containers[0].Image = "i:2"
	})
	becomes("canary", "i:1", "i:1", "i:2")
	moved("-db-2", "+db-2")
	s, err := sets.Get(ctx, "db", metav1.GetOptions{})
	if err != nil || s.Status.CurrentRevision == s.Status.UpdateRevision || s.Status.CurrentReplicas != 2 || s.Status.UpdatedReplicas != 1 {
		t.Errorf("canary: %+v, %v", s.Status, err)
	}
	if err := client.CoreV1().Pods(ns).Delete(ctx, "db-0", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	moved("-db-0", "+db-0")
	becomes("the pod below the partition comes back as it was", "i:1", "i:1", "i:2")
	change(func(s *appsv1.StatefulSet) { s.Spec.UpdateStrategy.RollingUpdate.Partition = new(int32(0)) })
	moved("-db-1", "+db-1", "-db-0", "+db-0")
	becomes("rolled", "i:2", "i:2", "i:2")
	eventually(t, 5*time.Second, "one revision", func() error {
		s, err := sets.Get(ctx, "db", metav1.GetOptions{})
		if err == nil && (s.Status.CurrentRevision != s.Status.UpdateRevision || s.Status.CurrentReplicas != 3) {
			err = fmt.Errorf("status %+v", s.Status)
		}
		return err
	})

	kubectl(t, ours, "-n", ns, "rollout", "undo", "statefulset/db")
	kubectl(t, ours, "-n", ns, "rollout", "status", "statefulset/db", "--timeout=20s")
	moved("-db-2", "+db-2", "-db-1", "+db-1", "-db-0", "+db-0")
	becomes("undone", "i:1", "i:1", "i:1")
	revs, err := client.AppsV1().ControllerRevisions(ns).List(ctx, metav1.ListOptions{})
	if err != nil || len(revs.Items) != 2 || max(revs.Items[0].Revision, revs.Items[1].Revision) != 3 {
		t.Errorf("revisions %v, %v", revs.Items, err)
	}

	failed, err := client.CoreV1().Pods(ns).Get(ctx, "db-1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	failed.Status.Phase, failed.Status.Reason, failed.Status.Conditions = corev1.PodFailed, "Evicted", nil
	if _, err := client.CoreV1().Pods(ns).UpdateStatus(ctx, failed, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	moved("-db-1", "+db-1")
	becomes("well again", "i:1", "i:1", "i:1")

	change(func(s *appsv1.StatefulSet) { s.Spec.Replicas = new(int32(1)) })
	moved("-db-2", "-db-1")
	becomes("one pod", "i:1")
}

// TestStatefulClaims has a set make its claims, all at once, and leave with them.
func TestStatefulClaims(t *testing.T) {
	client, _ := start(t)
	newHollow(t, client, "live-claims", nil)
	ns, ctx := space(t, client), t.Context()
	s := statefulOf(2, "i:1")
	s.Spec.PodManagementPolicy = appsv1.ParallelPodManagement
	s.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: 3}
	s.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
		WhenDeleted: appsv1.DeletePersistentVolumeClaimRetentionPolicyType,
	}
	s.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}}
	if _, err := client.AppsV1().StatefulSets(ns).Create(ctx, s, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "two pods with their claims", func() error {
		for _, n := range []string{"db-3", "db-4"} {
			p, err := client.CoreV1().Pods(ns).Get(ctx, n, metav1.GetOptions{})
			if err != nil {
				return err
			}
			c, err := client.CoreV1().PersistentVolumeClaims(ns).Get(ctx, "data-"+n, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if len(c.OwnerReferences) != 1 || c.Labels["app"] != "db" || p.Spec.Hostname != n || p.Spec.Subdomain != "db" || p.Spec.Volumes[0].PersistentVolumeClaim.ClaimName != c.Name {
				return fmt.Errorf("pod %+v, claim %+v", p, c)
			}
		}
		return nil
	})
	now, err := client.AppsV1().StatefulSets(ns).Get(ctx, "db", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	now.Spec.Template.Spec.Containers[0].Image = "i:2"
	if _, err := client.AppsV1().StatefulSets(ns).Update(ctx, now, metav1.UpdateOptions{}); err != nil {
		t.Error("another image:", err)
	}
	if err := client.AppsV1().StatefulSets(ns).Delete(ctx, "db", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "no claims", func() error {
		claims, err := client.CoreV1().PersistentVolumeClaims(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if n := len(claims.Items); n > 0 {
			return fmt.Errorf("%d claims", n)
		}
		return nil
	})
}
