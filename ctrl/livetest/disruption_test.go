//go:build integration

package livetest

import (
	"fmt"
	"testing"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TestDisruption evicts no pod of two while a budget needs both, and one as
// soon as there is a third, for which another comes.
func TestDisruption(t *testing.T) {
	client, _ := start(t)
	newHollow(t, client, "live-budget", nil)
	ns, ctx := space(t, client), t.Context()
	if _, err := client.AppsV1().Deployments(ns).Create(ctx, web(2, "i:1"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	least := intstr.FromInt32(2)
	if _, err := client.PolicyV1().PodDisruptionBudgets(ns).Create(ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: &least, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	allows := func(n int32) {
		t.Helper()
		eventually(t, 5*time.Second, fmt.Sprintf("%d may go", n), func() error {
			b, err := client.PolicyV1().PodDisruptionBudgets(ns).Get(ctx, "web", metav1.GetOptions{})
			if err == nil && (b.Status.DisruptionsAllowed != n || b.Status.CurrentHealthy != 2+n || len(b.Status.DisruptedPods) > 0) {
				err = fmt.Errorf("status %+v", b.Status)
			}
			return err
		})
	}
	evict := func() error {
		pods, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, p := range pods.Items {
			if p.DeletionTimestamp == nil {
				return client.PolicyV1().Evictions(ns).Evict(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: ns}})
			}
		}
		return fmt.Errorf("there is no pod")
	}
	allows(0)
	if err := evict(); !apierrors.IsTooManyRequests(err) {
		t.Errorf("an eviction that the budget forbids: %v, want too many requests", err)
	}
	kubectl(t, ours, "-n", ns, "scale", "deployment/web", "--replicas=3")
	allows(1)
	if err := evict(); err != nil {
		t.Fatal(err)
	}
	allows(1)
}
