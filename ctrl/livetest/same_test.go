//go:build integration

package livetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// compared are the kinds whose objects must come out alike.
var compared = []schema.GroupVersionResource{
	{Group: "apps", Version: "v1", Resource: "deployments"},
	{Group: "apps", Version: "v1", Resource: "replicasets"},
	{Version: "v1", Resource: "replicationcontrollers"},
	{Version: "v1", Resource: "pods"},
	{Version: "v1", Resource: "endpoints"},
	{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"},
	{Version: "v1", Resource: "serviceaccounts"},
	{Version: "v1", Resource: "configmaps"},
	{Version: "v1", Resource: "events"},
}

// TestSameAsStock does the same to a server with our controllers and to one
// with stock ones, and compares all that is there then, and how many writes
// it took.
func TestSameAsStock(t *testing.T) {
	theirs := config(t, stock)
	start(t)
	want, stockWrites := scenario(t, theirs)
	got, ourWrites := scenario(t, config(t, ours))
	if dir := os.Getenv("KNARR_TEST_DUMP"); dir != "" {
		for name, text := range map[string]string{"stock": want, "ours": got} {
			if err := os.WriteFile(dir+"/"+name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("not the same (-stock +ours):\n%s", diff)
	}
	total := func(m map[string]int) (n int) {
		for _, v := range m {
			n += v
		}
		return n
	}
	t.Logf("stock: %d writes, ours: %d, ratio %.2f", total(stockWrites), total(ourWrites), float64(total(ourWrites))/float64(total(stockWrites)))
	for _, k := range slices.Sorted(keysOf(stockWrites, ourWrites)) {
		t.Logf("%40s %4d %4d", k, stockWrites[k], ourWrites[k])
	}
}

func keysOf(ms ...map[string]int) func(func(string) bool) {
	return func(yield func(string) bool) {
		seen := map[string]bool{}
		for _, m := range ms {
			for k := range m {
				if !seen[k] && !yield(k) {
					return
				}
				seen[k] = true
			}
		}
	}
}

// scenario uses most of what the controllers do, and returns what is there
// afterwards, without what differs from run to run.
func scenario(t *testing.T, c *rest.Config) (string, map[string]int) {
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	newHollow(t, client, "live-same", nil)
	ns := "same-as-stock"
	if _, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.CoreV1().Namespaces().Delete(context.Background(), ns, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		eventually(t, 60*time.Second, "the namespace goes", func() error {
			if _, err := client.CoreV1().Namespaces().Get(context.Background(), ns, metav1.GetOptions{}); err == nil {
				return fmt.Errorf("still there")
			}
			return nil
		})
	})
	eventually(t, 10*time.Second, "service account", func() error {
		_, err := client.CoreV1().ServiceAccounts(ns).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	before := writes(t, client)
	do := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	headless := service("quiet")
	headless.Spec.ClusterIP, headless.Spec.Ports = corev1.ClusterIPNone, nil
	manual := service("manual")
	manual.Spec.Selector = nil
	for _, s := range []*corev1.Service{service("web"), headless, manual} {
		do(client.CoreV1().Services(ns).Create(ctx, s, metav1.CreateOptions{}))
	}
	//nolint:staticcheck // deprecated, and mirrored
	do(client.CoreV1().Endpoints(ns).Create(ctx, &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Name: "manual", Labels: map[string]string{"l": "v"}, Annotations: map[string]string{"a": "b"}},
		Subsets: []corev1.EndpointSubset{{
			Addresses: []corev1.EndpointAddress{{IP: "10.7.0.1"}, {IP: "10.7.0.2", Hostname: "two"}},
			Ports:     []corev1.EndpointPort{{Name: "http", Port: 80}, {Name: "alt", Port: 81}},
		}},
	}, metav1.CreateOptions{}))
	d := web(3, "i:1")
	d.Annotations = map[string]string{"kubernetes.io/change-cause": "first"}
	do(client.AppsV1().Deployments(ns).Create(ctx, d, metav1.CreateOptions{}))
	do(client.CoreV1().ReplicationControllers(ns).Create(ctx, &corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Name: "rc"},
		Spec: corev1.ReplicationControllerSpec{
			Replicas: new(int32(2)), Selector: map[string]string{"app": "rc"},
			Template: &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "rc"}}, Spec: d.Spec.Template.Spec},
		},
	}, metav1.CreateOptions{}))
	step := func(n int32, patch string) {
		t.Helper()
		if patch != "" {
			do(client.AppsV1().Deployments(ns).Patch(ctx, "web", "application/strategic-merge-patch+json", []byte(patch), metav1.PatchOptions{}))
		}
		eventually(t, 20*time.Second, "complete after "+patch, func() error { return complete(ctx, client, ns, n) })
		settle(ctx, t, client, ns)
	}
	step(3, "")
	step(3, `{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"i:2"}]}}}}`)
	step(5, `{"spec":{"replicas":5}}`)
	step(5, `{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"i:1"}]}}}}`)
	step(2, `{"spec":{"replicas":2}}`)
	after := writes(t, client)
	for k, n := range before {
		after[k] -= n
	}
	for _, k := range []string{"PATCH deployments/", "PATCH pods/status", "POST deployments/", "POST pods/binding", "POST services/", "POST ipaddresses/", "POST replicationcontrollers/"} {
		delete(after, k) // not the controllers'
	}
	after["DELETE pods/"] -= after["DELETE pods/"] / 2 // the node's half
	for k, n := range after {
		if n == 0 {
			delete(after, k)
		}
	}
	return dump(t, c, ns), after
}

// settle waits until nothing has changed in ns for a while.
func settle(ctx context.Context, t *testing.T, client *kubernetes.Clientset, ns string) {
	t.Helper()
	last, since := "", time.Now()
	eventually(t, 30*time.Second, "quiet", func() error {
		list, err := client.CoreV1().Events(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		sets, err := client.AppsV1().ReplicaSets(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		pods, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		now := fmt.Sprint(len(list.Items), len(pods.Items))
		for _, s := range sets.Items {
			now += s.ResourceVersion
		}
		if now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) < 1500*time.Millisecond {
			return fmt.Errorf("changes")
		}
		return nil
	})
}

var metric = regexp.MustCompile(`^apiserver_request_total\{.*resource="([a-z]+)".*subresource="([a-z]*)".*verb="(POST|PUT|PATCH|DELETE)".*\} (\S+)$`)

// writes is how many writing requests the server has had, by kind.
func writes(t *testing.T, client *kubernetes.Clientset) map[string]int {
	t.Helper()
	text, err := client.RESTClient().Get().AbsPath("/metrics").Do(t.Context()).Raw()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for line := range bytes.Lines(text) {
		m := metric.FindSubmatch(bytes.TrimSpace(line))
		if m == nil || string(m[1]) == "leases" || string(m[1]) == "nodes" {
			continue
		}
		var n float64
		if _, err := fmt.Sscan(string(m[4]), &n); err != nil {
			t.Fatal(err)
		}
		out[string(m[3])+" "+string(m[1])+"/"+string(m[2])] += int(n)
	}
	return out
}

var (
	uid     = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	moment  = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	address = regexp.MustCompile(`10\.9\.\d+\.\d+`)
	mounted = regexp.MustCompile(`kube-api-access-\w{5}`)
	scaled  = regexp.MustCompile(`Scaled (up|down) replica set .* from \d+ to \d+`)
)

// dump is all compared objects of ns as text, sorted.
func dump(t *testing.T, c *rest.Config, ns string) string {
	t.Helper()
	dyn, err := dynamic.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	var names []string // pairs of what the server made up and what stands for it
	var texts []string
	for _, gvr := range compared {
		list, err := dyn.Resource(gvr).Namespace(ns).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range list.Items {
			o := &list.Items[i]
			if g := o.GetGenerateName(); g != "" {
				names = append(names, o.GetName(), g+"*")
			}
			texts = append(texts, plain(t, o))
		}
	}
	all := strings.NewReplacer(names...)
	for i, text := range texts {
		text = all.Replace(text)
		text = address.ReplaceAllString(moment.ReplaceAllString(uid.ReplaceAllString(text, "UID"), "TIME"), "ADDRESS")
		text = scaled.ReplaceAllString(mounted.ReplaceAllString(text, "MOUNT"), "Scaled $1") // we may take two steps as one, and repeats are put together
		texts[i] = podName.ReplaceAllString(text, "$1*")
	}
	slices.Sort(texts)
	return strings.Join(slices.Compact(texts), "\n")
}

// podName is one that an event still tells of though the pod is gone.
var podName = regexp.MustCompile(`((?:web-[a-z0-9]+|rc)-)[bcdfghjklmnpqrstvwxz2456789]{5}\b`)

// plain is o without what only a server knows. Of events only what they say
// is left: upstream and we may count repeats in different ones.
func plain(t *testing.T, o *unstructured.Unstructured) string {
	t.Helper()
	m := o.Object
	if o.GetKind() == "Event" {
		m = map[string]any{"kind": "Event", "type": m["type"], "reason": m["reason"], "message": m["message"], "source": m["source"]}
	}
	if meta, ok := m["metadata"].(map[string]any); ok {
		for _, k := range []string{"managedFields", "resourceVersion", "creationTimestamp", "name"} {
			if k != "name" || meta["generateName"] != nil {
				delete(meta, k)
			}
		}
	}
	if o.GetKind() != "Deployment" { // how often it took to write a spec
		unstructured.RemoveNestedField(m, "metadata", "generation")
		unstructured.RemoveNestedField(m, "status", "observedGeneration")
	}
	if subsets, ok := m["subsets"].([]any); ok { // they have their ports in the order of a hash
		for _, s := range subsets {
			ports, _ := s.(map[string]any)["ports"].([]any)
			slices.SortFunc(ports, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		}
	}
	if data, ok := m["data"].(map[string]any); ok && data["ca.crt"] != nil {
		data["ca.crt"] = "PEM"
	}
	b, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestLatency measures how long after a deployment was created its three pods
// are, for both.
func TestLatency(t *testing.T) {
	theirs := config(t, stock)
	start(t)
	for _, side := range []struct {
		name   string
		config *rest.Config
	}{{"stock", theirs}, {"ours", config(t, ours)}} {
		client, err := kubernetes.NewForConfig(side.config)
		if err != nil {
			t.Fatal(err)
		}
		ns := space(t, client)
		w, err := client.CoreV1().Pods(ns).Watch(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var took []time.Duration
		for i := range 30 {
			d := web(3, "i:1")
			d.Name = fmt.Sprintf("web-%d", i)
			begin := time.Now()
			if _, err := client.AppsV1().Deployments(ns).Create(t.Context(), d, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			for n := 0; n < 3; {
				if e := <-w.ResultChan(); e.Type == "ADDED" {
					n++
				}
			}
			took = append(took, time.Since(begin))
			<-time.After(200 * time.Millisecond)
		}
		w.Stop()
		slices.Sort(took)
		t.Logf("%s: three pods after %v (median of %d), at best %v, at worst %v", side.name, took[len(took)/2], len(took), took[0], took[len(took)-1])
	}
}
