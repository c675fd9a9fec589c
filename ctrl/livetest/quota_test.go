//go:build integration

package livetest

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/apis/quota"
)

// TestQuota follows what is used of a quota as objects come, end and go, and
// its bounds as they change.
func TestQuota(t *testing.T) {
	client, _ := start(t)
	newHollow(t, client, "live-quota", nil)
	ns, ctx := space(t, client), t.Context()
	list := func(pods, cpu, maps, leases string) corev1.ResourceList {
		return corev1.ResourceList{
			corev1.ResourcePods: resource.MustParse(pods), corev1.ResourceRequestsCPU: resource.MustParse(cpu),
			corev1.ResourceConfigMaps: resource.MustParse(maps), "count/leases.coordination.k8s.io": resource.MustParse(leases),
		}
	}
	shows := func(what string, hard, used corev1.ResourceList) {
		t.Helper()
		began := time.Now()
		eventually(t, 5*time.Second, what, func() error {
			q, err := client.CoreV1().ResourceQuotas(ns).Get(ctx, "q", metav1.GetOptions{})
			if err == nil && (!quota.Same(q.Status.Hard, hard) || !quota.Same(q.Status.Used, used)) {
				err = fmt.Errorf("hard %s, used %s", quota.Text(q.Status.Hard), quota.Text(q.Status.Used))
			}
			return err
		})
		t.Logf("%s: after %v", what, time.Since(began))
	}
	pod := func(name string) {
		t.Helper()
		asks := corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m")}}
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       corev1.PodSpec{TerminationGracePeriodSeconds: new(int64(1)), Containers: []corev1.Container{{Name: "c", Image: "i", Resources: asks}}},
		}
		if _, err := client.CoreV1().Pods(ns).Create(ctx, p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	pod("before")
	hard := list("3", "2", "2", "0")
	_, err := client.CoreV1().ResourceQuotas(ns).Create(ctx, &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: hard},
	}, metav1.CreateOptions{})
	check(err)
	shows("what there was", hard, list("1", "500m", "1", "0")) // the root CA

	pod("ends")
	_, err = client.CoreV1().ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "m"}}, metav1.CreateOptions{})
	check(err)
	shows("what came", hard, list("2", "1", "2", "0"))
	eventually(t, 5*time.Second, "the pods end", func() error {
		if err := end(ctx, client, ns, 0); err != nil {
			return err
		}
		pods, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{FieldSelector: "status.phase!=Succeeded"})
		if err == nil && len(pods.Items) > 0 {
			err = fmt.Errorf("%d have not", len(pods.Items))
		}
		return err
	})
	check(client.CoreV1().ConfigMaps(ns).Delete(ctx, "m", metav1.DeleteOptions{}))
	shows("what ended and went", hard, list("0", "0", "1", "0"))

	pod("goes")
	shows("one more", hard, list("1", "500m", "1", "0"))
	check(client.CoreV1().Pods(ns).Delete(ctx, "goes", metav1.DeleteOptions{}))
	shows("it went", hard, list("0", "0", "1", "0"))
	_, err = client.CoreV1().ResourceQuotas(ns).Patch(ctx, "q", types.MergePatchType, []byte(`{"spec":{"hard":{"pods":"9"}}}`), metav1.PatchOptions{})
	check(err)
	shows("other bounds", list("9", "2", "2", "0"), list("0", "0", "1", "0"))
}
