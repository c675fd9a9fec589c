package match_test

import (
	"context"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/expression"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/admit"
	"github.com/knarr-dev/knarr/registry/match"
	"github.com/knarr-dev/knarr/registry/registrytest"
)

// request is one for an object of a kind that is served, in its stored form.
func request(s *registrytest.Server, op admit.Operation, gr schema.GroupResource, obj apis.Object) *admit.Request {
	d := s.Rest.Kind(gr).Definition
	r := &admit.Request{
		Operation: op, Kind: d, Namespace: obj.GetNamespace(), Name: obj.GetName(), Object: obj,
		User:     registry.User{Name: "ann", Groups: []string{"staff"}, Extra: map[string][]string{"of": {"x"}}},
		Resource: d.GroupVersion().WithResource(d.Plural), Sent: d.GroupVersionKind,
		Options: &metav1.PatchOptions{FieldManager: "me"},
	}
	if op == admit.Delete {
		r.Object, r.Old = nil, obj
	}
	return r
}

func TestMatch(t *testing.T) {
	s := registrytest.Run(t)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", Labels: map[string]string{"app": "x"}}}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "new", Labels: map[string]string{"is": "new"}}}
	hpa := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: "h", Namespace: "default"}}
	pods, nodes, namespaces := corev1.Resource("pods"), corev1.Resource("nodes"), corev1.Resource("namespaces")
	hpas := schema.GroupResource{Group: "autoscaling", Resource: "horizontalpodautoscalers"}
	exec := request(s, admit.Connect, pods, pod)
	exec.Sub, exec.Object, exec.Connects, exec.Sent.Kind = "exec", nil, &corev1.PodExecOptions{}, "PodExecOptions"
	const rule = `{operations: ["*"], apiGroups: ["*"], apiVersions: ["*"], resources: [`
	for _, c := range []struct {
		name, criteria string
		request        *admit.Request
		want           string
	}{
		{"everything", rule + `"*/*"]}`, request(s, admit.Create, pods, pod), "v1 pods Pod"},
		{"subresource", rule + `"*/*"]}`, exec, "v1 pods PodExecOptions"},
		{"no subresource", rule + `"*", "pods/attach"]}`, exec, ""},
		{"named subresource", rule + `"pods/exec"]}`, exec, "v1 pods PodExecOptions"},
		{"operation", strings.Replace(rule, "*", "UPDATE", 1) + `"pods"]}`, request(s, admit.Create, pods, pod), ""},
		{"deletion", strings.Replace(rule, "*", "DELETE", 1) + `"pods"]}`, request(s, admit.Delete, pods, pod), "v1 pods Pod"},
		{"cluster scope", rule + `"*"], scope: Cluster}`, request(s, admit.Create, nodes, node), "v1 nodes Node"},
		{"not in the cluster's scope", rule + `"*"], scope: Cluster}`, request(s, admit.Create, pods, pod), ""},
		{"a namespace is in no namespace", rule + `"*"], scope: Namespaced}`, request(s, admit.Create, namespaces, ns), ""},
		{
			"other version", `{operations: [CREATE], apiGroups: [autoscaling], apiVersions: [v1], resources: ["*"]}`,
			request(s, admit.Create, hpas, hpa), "autoscaling/v1 horizontalpodautoscalers HorizontalPodAutoscaler",
		},
		{
			"exactly", `{operations: [CREATE], apiGroups: [autoscaling], apiVersions: [v1], resources: ["*"]}], matchPolicy: Exact, resourceRules_: [`,
			request(s, admit.Create, hpas, hpa), "",
		},
		{
			"namespace", rule + `"*"]}], namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}, x: [`,
			request(s, admit.Create, pods, pod), "v1 pods Pod",
		},
		{"other namespace", rule + `"*"]}], namespaceSelector: {matchLabels: {is: new}}, x: [`, request(s, admit.Create, pods, pod), ""},
		{
			"new namespace", rule + `"*"]}], namespaceSelector: {matchLabels: {is: new}}, x: [`,
			request(s, admit.Create, namespaces, ns), "v1 namespaces Namespace",
		},
		{"old object", rule + `"*"]}], objectSelector: {matchLabels: {app: x}}, x: [`, request(s, admit.Delete, pods, pod), "v1 pods Pod"},
		{"other object", rule + `"*"]}], objectSelector: {matchLabels: {app: y}}, x: [`, request(s, admit.Create, pods, pod), ""},
		{"excepted", rule + `"*"]}], excludeResourceRules: [` + rule + `"pods"], resourceNames: [p]}`, request(s, admit.Create, pods, pod), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var m admissionregistrationv1.MatchResources
			if err := yaml.Unmarshal([]byte("{resourceRules: ["+c.criteria+"]}"), &m); err != nil {
				t.Fatal(err)
			}
			criteria, err := match.New(&m)
			if err != nil {
				t.Fatal(err)
			}
			as, err := criteria.Match(t.Context(), s.Rest, s.Rest.Admit.World, c.request)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if as != nil {
				got = as.Resource.GroupVersion().String() + " " + as.Resource.Resource + " " + as.Kind.Kind
				seen, err := as.See(s.Rest, c.request)
				if err != nil {
					t.Fatal(err)
				}
				if obj := seen.Object; obj != nil && c.request.Connects == nil && obj.GetObjectKind().GroupVersionKind() != as.Kind {
					t.Errorf("seen as %v, meant as %v", obj.GetObjectKind().GroupVersionKind(), as.Kind)
				}
			}
			if got != c.want {
				t.Errorf("matched as %q, want %q", got, c.want)
			}
		})
	}
}

func TestConditions(t *testing.T) {
	s := registrytest.Run(t)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default"}}
	r := request(s, admit.Update, corev1.Resource("pods"), pod)
	seen, err := (&match.As{Resource: r.Resource, Kind: r.Sent}).See(s.Rest, r)
	if err != nil {
		t.Fatal(err)
	}
	may := func(_ context.Context, r *registry.Request) (bool, string) {
		return r.User.Name == "ann" && r.Verb == "get" && r.Plural == "pods" && r.Name == "p", "because"
	}
	vars, err := seen.Vars(may)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		`object.metadata.name == "p" && oldObject == null`:                                 "true",
		`request.operation == "UPDATE" && request.userInfo.username == "ann"`:              "true",
		`request.userInfo.extra["of"] == ["x"] && request.options.kind == "UpdateOptions"`: "true",
		`request.resource.resource == "pods" && request.kind.kind == "Pod"`:                "true",
		`authorizer.requestResource.check("get").allowed()`:                                "true",
		`authorizer.group("").resource("pods").name("p").check("delete").allowed()`:        "false",
		`object.spec.nodeName == "n"`:                                                      "expression 'object.spec.nodeName == \"n\"' resulted in error: no such key: nodeName",
		`object.metadata.name == "q"`:                                                      "false",
	} {
		cs := match.NewConditions([]admissionregistrationv1.MatchCondition{{Name: "c", Expression: text}}, expression.Uses{Authorizer: true})
		ok, err := cs.Hold(t.Context(), vars)
		got := map[bool]string{true: "true", false: "false"}[ok]
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
}
