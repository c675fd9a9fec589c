package addons

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
)

func dns(replicas int32) []runtime.Object {
	return DNS(DNSOptions{Image: "knarr.local/demo:latest", ClusterIP: "10.96.0.10", Zone: "cluster.local", Replicas: replicas})
}

// TestDNS holds what others rely on: names, labels, the address, the ports,
// and that what selects finds what is selected.
func TestDNS(t *testing.T) {
	kinds := map[string]runtime.Object{}
	for _, obj := range dns(2) {
		gvk := obj.GetObjectKind().GroupVersionKind()
		if typed, err := scheme.Scheme.New(gvk); err != nil {
			t.Errorf("%s: %v", gvk, err)
		} else if want, _, _ := scheme.Scheme.ObjectKinds(typed); len(want) == 0 {
			t.Errorf("%s is no kind", gvk)
		}
		if m, err := meta.Accessor(obj); err != nil || m.GetLabels()["k8s-app"] != "kube-dns" {
			t.Errorf("%s: %v", gvk.Kind, err)
		}
		kinds[gvk.Kind] = obj
	}
	s, d := kinds["Service"].(*corev1.Service), kinds["Deployment"].(*appsv1.Deployment)
	if s.Name != "kube-dns" || s.Namespace != "kube-system" || s.Spec.ClusterIP != "10.96.0.10" || len(s.Spec.Ports) != 3 {
		t.Errorf("service: %+v", s)
	}
	for k, v := range s.Spec.Selector {
		if d.Spec.Template.Labels[k] != v {
			t.Errorf("service does not select: %s", k)
		}
	}
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil || selector.Empty() {
		t.Fatal(selector, err)
	}
	p := d.Spec.Template.Spec
	if p.DNSPolicy != corev1.DNSDefault || p.PriorityClassName != "system-cluster-critical" || p.ServiceAccountName != kinds["ServiceAccount"].(*corev1.ServiceAccount).Name {
		t.Errorf("pod: %+v", p)
	}
	for _, tol := range p.Tolerations {
		if tol.Key == corev1.TaintNodeNotReady || tol.Key == corev1.TaintNodeUnreachable || tol.Key == "" {
			t.Errorf("it stays on a node that is not ready: %v", tol)
		}
	}
	for nodes, want := range map[int]int32{0: 1, 1: 1, 2: 2, 9: 2} {
		if got := DNSReplicas(nodes); got != want {
			t.Errorf("%d on %d nodes", got, nodes)
		}
	}
}

func TestApply(t *testing.T) {
	ctx := t.Context()
	client := fake.NewClientset()
	deployments := client.AppsV1().Deployments("kube-system")
	replicas := func() int32 {
		t.Helper()
		d, err := deployments.Get(ctx, "kube-dns", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return *d.Spec.Replicas
	}
	apply := func(n int32) {
		t.Helper()
		if err := Apply(ctx, client, dns(n)); err != nil {
			t.Fatal(err)
		}
	}
	apply(1)
	apply(1)
	if n := replicas(); n != 1 {
		t.Errorf("%d replicas", n)
	}
	apply(2)
	if n := replicas(); n != 2 {
		t.Errorf("with another node there are %d", n)
	}
	if _, err := client.CoreV1().Services("kube-system").Get(ctx, "kube-dns", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}

	d, err := deployments.Get(ctx, "kube-dns", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d.Spec.Replicas = new(int32(5))
	d.Spec.Template.Spec.Containers[0].Image = "other"
	if _, err := deployments.Update(ctx, d, metav1.UpdateOptions{FieldManager: "kubectl"}); err != nil {
		t.Fatal(err)
	}
	apply(2)
	apply(1)
	if n := replicas(); n != 5 {
		t.Errorf("of 5 that somebody wanted there are %d", n)
	}
	if d, err = deployments.Get(ctx, "kube-dns", metav1.GetOptions{}); err != nil || d.Spec.Template.Spec.Containers[0].Image != "knarr.local/demo:latest" {
		t.Errorf("it runs %s: %v", d.Spec.Template.Spec.Containers[0].Image, err)
	}
	if err := Apply(ctx, client, []runtime.Object{&corev1.Pod{}}); err == nil {
		t.Error("what nobody applies is applied")
	}
}
