package sub_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	policyv1beta1 "k8s.io/api/policy/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/knarr-dev/knarr/registry/registrytest"
)

// connect starts a server and returns a client of it.
func connect(t *testing.T, opts ...registrytest.Option) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(registrytest.Start(t, opts...))
	if err != nil {
		t.Fatal(err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := client.CoreV1().ServiceAccounts("default").Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return client
}

// makePod makes a pod that runs on a node, unless change says otherwise.
func makePod(t *testing.T, client kubernetes.Interface, name string, change func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	if change != nil {
		change(pod)
	}
	pods := client.CoreV1().Pods("default")
	made, err := pods.Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	made.Status = pod.Status
	if made, err = pods.UpdateStatus(t.Context(), made, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	return made
}

// message is what an error tells a client, with its code.
func message(err error) string {
	if err == nil {
		return ""
	}
	status, ok := err.(apierrors.APIStatus)
	if !ok {
		return err.Error()
	}
	s := status.Status()
	text := fmt.Sprint(s.Code, " ", s.Message)
	if s.Details != nil {
		for _, c := range s.Details.Causes {
			text += "; " + c.Message
		}
	}
	return text
}

// contract: SR-3
func TestBinding(t *testing.T) {
	client := connect(t)
	ctx := t.Context()
	nowhere := func(p *corev1.Pod) {
		p.Spec.NodeName, p.Status = "", corev1.PodStatus{Phase: corev1.PodPending, NominatedNodeName: "m"}
	}
	makePod(t, client, "free", nowhere)
	makePod(t, client, "gated", func(p *corev1.Pod) {
		nowhere(p)
		p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}}
	})
	makePod(t, client, "going", func(p *corev1.Pod) {
		nowhere(p)
		p.Finalizers = []string{"example.com/stay"}
	})
	pods := client.CoreV1().Pods("default")
	if err := pods.Delete(ctx, "going", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		bind corev1.Binding
		want string
	}{
		{"free", corev1.Binding{Target: corev1.ObjectReference{Kind: "Pod"}}, `500 [target.kind: Unsupported value: "Pod": supported values: "Node", "<empty>", target.name: Required value]`},
		{"none", corev1.Binding{Target: corev1.ObjectReference{Name: "n"}}, `404 pods "none" not found`},
		{"gated", corev1.Binding{Target: corev1.ObjectReference{Name: "n"}}, `409 Operation cannot be fulfilled on pods/binding "gated": pod gated has non-empty .spec.schedulingGates`},
		{"going", corev1.Binding{Target: corev1.ObjectReference{Name: "n"}}, `409 Operation cannot be fulfilled on pods/binding "going": pod going is being deleted, cannot be assigned to a host`},
		{"free", corev1.Binding{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "5"}, Target: corev1.ObjectReference{Name: "n"}}, `Precondition failed: ResourceVersion in precondition: 5`},
		{"free", corev1.Binding{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Target: corev1.ObjectReference{Name: "n"}}, `Precondition failed: UID in precondition: u`},
		{"free", corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"a": "b"}, Labels: map[string]string{"c": "d"}},
			Target:     corev1.ObjectReference{Kind: "Node", Name: "n"},
		}, ""},
		{"free", corev1.Binding{Target: corev1.ObjectReference{Name: "n"}}, `409 Operation cannot be fulfilled on pods/binding "free": pod free is already assigned to node "n"`},
	}
	for _, test := range tests {
		test.bind.Name = test.name
		if got := message(pods.Bind(ctx, &test.bind, metav1.CreateOptions{})); !strings.Contains(got, test.want) || (got == "") != (test.want == "") {
			t.Errorf("bind %s: got %s, want %s", test.name, got, test.want)
		}
	}
	pod, err := pods.Get(ctx, "free", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := pod.Status.Conditions
	if pod.Spec.NodeName != "n" || pod.Annotations["a"] != "b" || pod.Labels["c"] != "d" || pod.Labels["app"] != "free" ||
		pod.Status.NominatedNodeName != "" || pod.Generation != 1 ||
		len(c) != 1 || c[0].Type != corev1.PodScheduled || c[0].Status != corev1.ConditionTrue || c[0].LastTransitionTime.IsZero() {
		t.Errorf("bound is %v", pod)
	}
}

// TestBindingRace binds a pod many times at once: one wins.
func TestBindingRace(t *testing.T) {
	client := connect(t)
	makePod(t, client, "p", func(p *corev1.Pod) { p.Spec.NodeName, p.Status.Phase = "", corev1.PodPending })
	var work sync.WaitGroup
	errs := make([]error, 10)
	for i := range errs {
		work.Go(func() {
			b := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Target: corev1.ObjectReference{Name: fmt.Sprint("n", i)}}
			errs[i] = client.CoreV1().Pods("default").Bind(t.Context(), b, metav1.CreateOptions{})
		})
	}
	work.Wait()
	pod, err := client.CoreV1().Pods("default").Get(t.Context(), "p", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, err := range errs {
		if won := pod.Spec.NodeName == fmt.Sprint("n", i); won != (err == nil) || !won && !apierrors.IsConflict(err) {
			t.Errorf("the pod is on %s, and of binding %d it was said: %v", pod.Spec.NodeName, i, err)
		}
	}
}

// A budget is made for the pods of one app.
func makeBudget(t *testing.T, client kubernetes.Interface, name, app string, status policyv1.PodDisruptionBudgetStatus) *policyv1.PodDisruptionBudget {
	t.Helper()
	b := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}},
	}
	if always := strings.HasSuffix(name, "-always"); always {
		b.Spec.UnhealthyPodEvictionPolicy = new(policyv1.AlwaysAllow)
	}
	budgets := client.PolicyV1().PodDisruptionBudgets("default")
	b, err := budgets.Create(t.Context(), b, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b.Status = status
	if b, err = budgets.UpdateStatus(t.Context(), b, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	return b
}

func unready(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }

// contract: SR-4
func TestEviction(t *testing.T) {
	const refused = "429 Cannot evict pod as it would violate the pod's disruption budget.; The disruption budget b"
	type status = policyv1.PodDisruptionBudgetStatus
	says := func(reason string) []metav1.Condition {
		return []metav1.Condition{{Type: "DisruptionAllowed", Status: "False", Reason: reason, Message: "because", LastTransitionTime: metav1.Now()}}
	}
	tests := []struct {
		name    string
		change  func(*corev1.Pod)
		budgets []string
		status  status
		opts    *metav1.DeleteOptions
		want    string
		left    int32 // disruptions that are allowed afterwards
	}{
		{name: "no-budget"},
		{name: "allowed", budgets: []string{"b"}, status: status{ObservedGeneration: 1, DisruptionsAllowed: 2}, left: 1},
		{name: "last", budgets: []string{"b"}, status: status{ObservedGeneration: 1, DisruptionsAllowed: 1}},
		{name: "used-up", budgets: []string{"b"}, status: status{ObservedGeneration: 1, CurrentHealthy: 1, DesiredHealthy: 1}, want: refused + " needs 1 healthy pods and has 1 currently"},
		{name: "for-no-reason", budgets: []string{"b"}, status: status{ObservedGeneration: 1, CurrentHealthy: 2, DesiredHealthy: 1}, want: refused + " does not allow evicting pods currently"},
		{name: "for-a-reason", budgets: []string{"b"}, status: status{ObservedGeneration: 1, CurrentHealthy: 2, DesiredHealthy: 1, Conditions: says("Blah")}, want: refused + " does not allow evicting pods currently (Blah): because"},
		{name: "failed-sync", budgets: []string{"b"}, status: status{ObservedGeneration: 1, Conditions: says("SyncFailed")}, want: refused + " does not allow evicting pods currently because it failed sync: because"},
		{name: "not-observed", budgets: []string{"b"}, status: status{DisruptionsAllowed: 1}, want: refused + " is still being processed by the server.", left: 1},
		{name: "two-budgets", budgets: []string{"b", "c"}, status: status{ObservedGeneration: 1, DisruptionsAllowed: 1}, want: "500 This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.", left: 1},
		{name: "unready-and-enough", change: unready, budgets: []string{"b"}, status: status{ObservedGeneration: 1, CurrentHealthy: 1, DesiredHealthy: 1}},
		{name: "unready-and-too-few", change: unready, budgets: []string{"b"}, status: status{ObservedGeneration: 1, DesiredHealthy: 1}, want: refused + " needs 1 healthy pods and has 0 currently"},
		{name: "unready-always", change: unready, budgets: []string{"b-always"}, status: status{ObservedGeneration: 1, DesiredHealthy: 1}},
		{name: "pending", change: func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }, budgets: []string{"b"}, status: status{ObservedGeneration: 1}},
		{name: "failed", change: func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, budgets: []string{"b"}, status: status{ObservedGeneration: 1}},
		{name: "another", opts: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: new(types.UID("u"))}}, want: `409 Operation cannot be fulfilled on Pod "another": the UID in the precondition (u) does not match`},
		{name: "dry-run", opts: &metav1.DeleteOptions{DryRun: []string{"All"}}, budgets: []string{"b"}, status: status{ObservedGeneration: 1, DisruptionsAllowed: 1}, left: 1},
	}
	client := connect(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before := makePod(t, client, test.name, test.change)
			for _, b := range test.budgets {
				makeBudget(t, client, b, test.name, test.status)
			}
			err := client.PolicyV1().RESTClient().Post().AbsPath("/api/v1/namespaces/default/pods", test.name, "eviction").MaxRetries(0).
				Body(&policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: test.name}, DeleteOptions: test.opts}).Do(t.Context()).Error()
			if got := message(err); !strings.HasPrefix(got, test.want) || (got == "") != (test.want == "") {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			checkEvicted(t, client, before, err == nil && test.opts == nil)
			for _, name := range test.budgets {
				b, err := client.PolicyV1().PodDisruptionBudgets("default").Get(t.Context(), name, metav1.GetOptions{})
				if err != nil || b.Status.DisruptionsAllowed != test.left {
					t.Errorf("left are %d disruptions: %v", b.Status.DisruptionsAllowed, err)
				}
				if _, told := b.Status.DisruptedPods[test.name]; told != (test.status.DisruptionsAllowed-test.left == 1) {
					t.Errorf("disrupted are %v", b.Status.DisruptedPods)
				}
				if err := client.PolicyV1().PodDisruptionBudgets("default").Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// checkEvicted holds the pod to be going, and to say why, or to be as before.
func checkEvicted(t *testing.T, client kubernetes.Interface, before *corev1.Pod, evicted bool) {
	t.Helper()
	after, err := client.CoreV1().Pods("default").Get(t.Context(), before.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		if !evicted || before.Status.Phase != corev1.PodFailed {
			t.Error("the pod is gone")
		}
	case err != nil:
		t.Fatal(err)
	case !evicted:
		if after.ResourceVersion != before.ResourceVersion {
			t.Errorf("the pod has changed: %v", after)
		}
	default:
		i := slices.IndexFunc(after.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.DisruptionTarget })
		if i < 0 || after.Status.Conditions[i].Reason != "EvictionByEvictionAPI" || after.Status.Conditions[i].Message != "Eviction API: evicting" || after.DeletionTimestamp == nil {
			t.Errorf("the pod is %v", after)
		}
	}
}

// TestEvictionRace evicts more pods at once than the budget allows.
func TestEvictionRace(t *testing.T) {
	client := connect(t)
	const pods, allowed = 12, 5
	for i := range pods {
		makePod(t, client, fmt.Sprint("p", i), func(p *corev1.Pod) { p.Labels["app"] = "a" })
	}
	makeBudget(t, client, "b", "a", policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, DisruptionsAllowed: allowed})
	var mu sync.Mutex
	var work sync.WaitGroup
	evicted := 0
	for i := range pods {
		work.Go(func() {
			// An old client, which sends the kind by its old version.
			err := client.PolicyV1beta1().Evictions("default").Evict(context.WithoutCancel(t.Context()), &policyv1beta1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("p", i)}})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				evicted++
			case !apierrors.IsTooManyRequests(err):
				t.Error(err)
			}
		})
	}
	work.Wait()
	if evicted != allowed {
		t.Errorf("%d were evicted", evicted)
	}
}

// contract: K-13
func TestComponentStatuses(t *testing.T) {
	client := connect(t)
	statuses := client.CoreV1().ComponentStatuses()
	list, err := statuses.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range list.Items {
		names = append(names, s.Name)
		if s.Conditions[0].Type != corev1.ComponentHealthy || (s.Conditions[0].Status == corev1.ConditionTrue) != (s.Conditions[0].Message == "ok") {
			t.Errorf("%s is %v", s.Name, s.Conditions)
		}
	}
	if slices.Sort(names); !slices.Equal(names, []string{"controller-manager", "etcd-0", "scheduler"}) {
		t.Errorf("components are %v", names)
	}
	one, err := statuses.Get(t.Context(), "etcd-0", metav1.GetOptions{})
	if err != nil || one.Conditions[0].Message != "ok" || one.ResourceVersion != "" {
		t.Errorf("store is %v: %v", one, err)
	}
	if _, err := statuses.Get(t.Context(), "none", metav1.GetOptions{}); message(err) != `404 componentstatus "none" not found` {
		t.Error(err)
	}
	some, err := statuses.List(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=scheduler"})
	if err != nil || len(some.Items) != 1 {
		t.Errorf("selected are %v: %v", some, err)
	}
}
