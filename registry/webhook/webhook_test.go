package webhook_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/assembly"
	"github.com/knarr-dev/knarr/registry/memory"
	"github.com/knarr-dev/knarr/registry/registrytest"
)

const (
	configMaps = `rules: [{operations: ["*"], apiGroups: [""], apiVersions: [v1], resources: [configmaps]}]`
	everything = `rules: [{operations: ["*"], apiGroups: ["*"], apiVersions: ["*"], resources: ["*/*"]}]`
)

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"a": "b"}}
}

func TestRefused(t *testing.T) {
	h := serve(t, map[string]judge{"/no": deny("the data is unwanted"), "/silent": func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return &admissionv1.AdmissionResponse{}
	}})
	cfg := registrytest.Start(t)
	c := kubernetes.NewForConfigOrDie(cfg)
	if _, err := c.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("there"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	h.configure(cfg, false, "no", configMaps+`, objectSelector: {matchExpressions: [{key: skip, operator: DoesNotExist}]}`)
	_, err := c.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("x"), metav1.CreateOptions{})
	status, _ := err.(apierrors.APIStatus)
	if want := `admission webhook "no.example.com" denied the request: the data is unwanted`; err == nil || err.Error() != want || status.Status().Code != 403 || status.Status().Reason != "Nope" {
		t.Errorf("%#v, want %s", err, want)
	}
	r := h.seen("/no")
	if r.Name != "x" || r.Namespace != "default" || r.Operation != "CREATE" || r.UserInfo.Username != "admin" || r.UID == "" || r.Kind.Kind != "ConfigMap" || r.RequestResource.Resource != "configmaps" {
		t.Errorf("asked %+v", r)
	}
	if object, options := string(r.Object.Raw), string(r.Options.Raw); !strings.Contains(object, `"apiVersion":"v1"`) || !strings.Contains(object, `"kind":"ConfigMap"`) || !strings.Contains(options, "CreateOptions") {
		t.Errorf("asked about %s with %s", object, options)
	}
	skipped := configMap("y")
	skipped.Labels = map[string]string{"skip": "me"}
	if _, err := c.CoreV1().ConfigMaps("default").Create(t.Context(), skipped, metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := c.CoreV1().ConfigMaps("default").Patch(t.Context(), "y", types.MergePatchType, []byte(`{"metadata":{"labels":null}}`), metav1.PatchOptions{}); err == nil {
		t.Error("the old object does not count")
	}
	if r := h.seen("/no"); r.Operation != "UPDATE" || !strings.Contains(string(r.OldObject.Raw), "skip") || !strings.Contains(string(r.Options.Raw), "UpdateOptions") {
		t.Errorf("asked %+v", r)
	}
	if err := c.CoreV1().ConfigMaps("default").Delete(t.Context(), "there", metav1.DeleteOptions{}); err == nil {
		t.Error("it is deleted")
	}
	if r := h.seen("/no"); r.Operation != "DELETE" || r.Object.Raw != nil || r.OldObject.Raw == nil || !strings.Contains(string(r.Options.Raw), "DeleteOptions") {
		t.Errorf("asked %+v", r)
	}
	if err := c.AdmissionregistrationV1().ValidatingWebhookConfigurations().Delete(t.Context(), "no", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("x"), metav1.CreateOptions{}); err != nil {
		t.Errorf("without the webhook: %v", err)
	}
	h.configure(cfg, false, "silent", configMaps)
	_, err = c.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("z"), metav1.CreateOptions{})
	if want := `admission webhook "silent.example.com" denied the request without explanation`; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestUnreached(t *testing.T) {
	h := serve(t, map[string]judge{"/slow": hang, "/wrong": func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return &admissionv1.AdmissionResponse{Allowed: true, Patch: []byte("[]")}
	}})
	cfg := registrytest.Start(t)
	c := kubernetes.NewForConfigOrDie(cfg)
	create := func() error {
		_, err := c.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("x"), metav1.CreateOptions{DryRun: []string{"All"}})
		return err
	}
	for _, test := range []struct{ name, more, want string }{
		{"slow", `, timeoutSeconds: 1`, `failed to call webhook: Post "` + h.server.URL + `/slow?timeout=1s": context deadline exceeded`},
		{"missing", ``, `failed to call webhook: the server could not find the requested resource`},
		{"wrong", ``, `received invalid webhook response: validating webhook may not return response.patch`},
	} {
		for _, policy := range []string{"Fail", "Ignore"} {
			h.configure(cfg, false, test.name, configMaps+", failurePolicy: "+policy+test.more)
			err := create()
			want := fmt.Sprintf("Internal error occurred: failed calling webhook %q: %s", test.name+".example.com", test.want)
			switch {
			case policy == "Ignore" && err != nil:
				t.Errorf("%s is not ignored: %v", test.name, err)
			case policy == "Fail" && (err == nil || err.Error() != want || !apierrors.IsInternalError(err)):
				t.Errorf("%s:\n%v, want\n%s", test.name, err, want)
			}
			if err := c.AdmissionregistrationV1().ValidatingWebhookConfigurations().Delete(t.Context(), test.name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	other := serve(t, map[string]judge{"/untrusted": allow})
	other.ca = h.ca
	other.configure(cfg, false, "untrusted", configMaps)
	if err := create(); err == nil || !strings.Contains(err.Error(), "x509") {
		t.Errorf("a certificate that nobody vouches for: %v", err)
	}
}

// TestMutated holds to the order of webhooks, and that others look again at
// what they have changed.
func TestMutated(t *testing.T) {
	h := serve(t, map[string]judge{
		"/a":   patch(`[{"op":"add","path":"/spec/containers/-","value":{"name":"b","image":"second"}}]`),
		"/b":   patch(`[{"op":"replace","path":"/spec/containers/1/image","value":"third"}]`),
		"/see": allow,
	})
	h.judges["/a"] = func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if strings.Contains(string(r.Object.Raw), `"name":"b"`) {
			return allow(r)
		}
		return patch(`[{"op":"add","path":"/spec/containers/-","value":{"name":"b","image":"second"}}]`)(r)
	}
	cfg := registrytest.Start(t)
	c := kubernetes.NewForConfigOrDie(cfg)
	const pods = `rules: [{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [pods]}]`
	h.configure(cfg, true, "b", pods)
	h.configure(cfg, true, "a", pods+", reinvocationPolicy: IfNeeded")
	h.configure(cfg, false, "see", pods)
	if _, err := c.CoreV1().ServiceAccounts("default").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "first"}}}}
	pod, err := c.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := pod.Spec.Containers; len(got) != 2 || got[1].Image != "third" || got[1].ImagePullPolicy != "Always" || len(got[1].VolumeMounts) != 1 || len(pod.Spec.Volumes) != 1 {
		t.Errorf("containers %+v, volumes %+v", got, pod.Spec.Volumes)
	}
	if got, want := h.paths(), "/a?timeout=10s /b?timeout=10s /a?timeout=10s /see?timeout=10s"; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
	if seen := string(h.seen("/see").Object.Raw); !strings.Contains(seen, "third") {
		t.Errorf("what is validated is %s", seen)
	}
	h.judges["/a"] = patch(`[{"op":"replace","path":"/spec/containers/0/name","value":"Not A Name"}]`)
	pod = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "first"}, {Name: "b", Image: "x"}}}}
	if _, err := c.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("an invalid change: %v", err)
	}
}

func TestWarnings(t *testing.T) {
	h := serve(t, map[string]judge{"/w": func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return &admissionv1.AdmissionResponse{Allowed: true, Warnings: []string{"take care"}}
	}})
	cfg := registrytest.Start(t)
	h.configure(cfg, false, "w", configMaps)
	w := &told{}
	cfg.WarningHandlerWithContext = w
	if _, err := kubernetes.NewForConfigOrDie(cfg).CoreV1().ConfigMaps("default").Create(t.Context(), configMap("x"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if len(w.texts) != 1 || w.texts[0] != "take care" {
		t.Errorf("warned %q", w.texts)
	}
}

// TestAudited holds that the audit log tells what webhooks have said and done.
func TestAudited(t *testing.T) {
	dir := t.TempDir()
	policy, log := filepath.Join(dir, "policy"), filepath.Join(dir, "log")
	if err := os.WriteFile(policy, []byte("{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := serve(t, map[string]judge{"/change": func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		a := patch(`[{"op":"add","path":"/metadata/labels","value":{"x":"y"}}]`)(r)
		a.AuditAnnotations = map[string]string{"why": "because"}
		return a
	}})
	t.Run("server", func(t *testing.T) { // which has written all when it has ended
		cfg := registrytest.Start(t, registrytest.With(func(cfg *assembly.Config) { cfg.Audit.Policy, cfg.Audit.Log = policy, log }))
		h.configure(cfg, true, "change", configMaps)
		h.configure(cfg, true, "gone", configMaps+", failurePolicy: Ignore")
		if _, err := kubernetes.NewForConfigOrDie(cfg).CoreV1().ConfigMaps("default").Create(t.Context(), configMap("x"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"change.example.com/why":"because"`,
		`"mutation.webhook.admission.k8s.io/round_0_index_0":"{\"configuration\":\"change\",\"webhook\":\"change.example.com\",\"mutated\":true}"`,
		`"failed-open.mutation.webhook.admission.k8s.io/round_0_index_1":"gone.example.com"`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// TestExempt is for who wants to get rid of a webhook that refuses all.
func TestExempt(t *testing.T) {
	h := serve(t, map[string]judge{"/no": deny("no"), "/change": patch(`[{"op":"add","path":"/metadata/labels","value":{"x":"y"}}]`)})
	cfg := registrytest.Start(t)
	h.configure(cfg, false, "no", everything)
	h.configure(cfg, true, "change", everything)
	c := kubernetes.NewForConfigOrDie(cfg).AdmissionregistrationV1()
	got, err := c.MutatingWebhookConfigurations().Get(t.Context(), "change", metav1.GetOptions{})
	if err != nil || len(got.Labels) > 0 {
		t.Errorf("%v: %v", got.Labels, err)
	}
	if err := c.ValidatingWebhookConfigurations().Delete(t.Context(), "no", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	if got := h.paths(); got != "" {
		t.Errorf("asked %s", got)
	}
}

func TestConnect(t *testing.T) {
	h := serve(t, map[string]judge{"/exec": deny("not in there")})
	cfg := registrytest.Start(t)
	h.configure(cfg, false, "exec", `rules: [{operations: [CONNECT], apiGroups: [""], apiVersions: [v1], resources: ["pods/attach", "pods/exec"]}]`)
	c := kubernetes.NewForConfigOrDie(cfg).CoreV1().RESTClient()
	err := c.Post().AbsPath("/api/v1/namespaces/default/pods/p/exec").Param("command", "ls").Param("stdout", "true").Do(t.Context()).Error()
	if err == nil || !strings.Contains(err.Error(), "not in there") {
		t.Errorf("%v", err)
	}
	r := h.seen("/exec")
	if r.Operation != "CONNECT" || r.SubResource != "exec" || r.Kind.Kind != "PodExecOptions" || r.Name != "p" || r.Namespace != "default" || r.Options.Raw != nil ||
		!strings.Contains(string(r.Object.Raw), `"command":["ls"]`) || !strings.Contains(string(r.Object.Raw), `"kind":"PodExecOptions"`) {
		t.Errorf("asked %+v about %s", r, r.Object.Raw)
	}
}

const definition = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.test.example.com}
spec:
  group: test.example.com
  scope: Namespaced
  names: {plural: things, kind: Thing}
  versions:
  - {name: v1, served: true, storage: false, schema: {openAPIV3Schema: &s {type: object, properties: {
      size: {type: integer, default: 1}, made: {type: string}, box: {type: object, properties: {lid: {type: string, default: shut}}}}}}}
  - {name: v2, served: true, storage: true, schema: {openAPIV3Schema: *s}}
`

// TestCustom holds that custom objects are seen in the version that a rule
// names, and get back to what their schema says.
func TestCustom(t *testing.T) {
	h := serve(t, map[string]judge{"/made": patch(`[{"op":"add","path":"/made","value":"here"},{"op":"add","path":"/unknown","value":1},{"op":"add","path":"/box","value":{}}]`)})
	cfg := registrytest.Start(t)
	c := dynamic.NewForConfigOrDie(cfg)
	h.configure(cfg, true, "made", `rules: [{operations: [CREATE, UPDATE], apiGroups: [test.example.com], apiVersions: [v1], resources: [things]}]`)
	crd := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(definition), &crd.Object); err != nil {
		t.Fatal(err)
	}
	crds := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	if _, err := c.Resource(crds).Create(t.Context(), crd, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	things := c.Resource(schema.GroupVersionResource{Group: "test.example.com", Version: "v2", Resource: "things"}).Namespace("default")
	thing := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": "t"}}}
	thing.SetGroupVersionKind(schema.GroupVersionKind{Group: "test.example.com", Version: "v2", Kind: "Thing"})
	got, err := things.Create(t.Context(), thing, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	box, _ := got.Object["box"].(map[string]any)
	if got.GetAPIVersion() != "test.example.com/v2" || got.Object["made"] != "here" || got.Object["unknown"] != nil || box["lid"] != "shut" || got.Object["size"] != int64(1) {
		t.Errorf("%v", got.Object)
	}
	r := h.seen("/made")
	if r.Resource.Version != "v1" || r.Kind.Version != "v1" || r.RequestKind.Version != "v2" || !strings.Contains(string(r.Object.Raw), "test.example.com/v1") {
		t.Errorf("asked %+v about %s", r, r.Object.Raw)
	}
	got.Object["made"] = "there"
	if got, err = things.Update(t.Context(), got, metav1.UpdateOptions{}); err != nil || got.Object["made"] != "here" {
		t.Errorf("%v: %v", got, err)
	}
	if r := h.seen("/made"); !strings.Contains(string(r.OldObject.Raw), "test.example.com/v1") {
		t.Errorf("asked about what was %s", r.OldObject.Raw)
	}
}

// TestScale holds that a webhook sees the scale, and may change it.
func TestScale(t *testing.T) {
	h := serve(t, map[string]judge{"/scale": patch(`[{"op":"replace","path":"/spec/replicas","value":3}]`)})
	cfg := registrytest.Start(t)
	c := kubernetes.NewForConfigOrDie(cfg)
	h.configure(cfg, true, "scale", `rules: [{operations: [UPDATE], apiGroups: [""], apiVersions: [v1], resources: [replicationcontrollers/scale]}]`)
	labels := map[string]string{"a": "b"}
	rc := &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: corev1.ReplicationControllerSpec{
		Selector: labels, Template: &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "i"}}}},
	}}
	if _, err := c.CoreV1().ReplicationControllers("default").Create(t.Context(), rc, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	scale := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: autoscalingv1.ScaleSpec{Replicas: 7}}
	got, err := c.CoreV1().ReplicationControllers("default").UpdateScale(t.Context(), "r", scale, metav1.UpdateOptions{})
	if err != nil || got.Spec.Replicas != 3 {
		t.Errorf("%v: %v", got, err)
	}
	var seen autoscalingv1.Scale
	if err := json.Unmarshal(h.seen("/scale").Object.Raw, &seen); err != nil || seen.Kind != "Scale" || seen.Spec.Replicas != 7 {
		t.Errorf("saw %v: %v", seen, err)
	}
}

// TestViews holds that what is sent in one version is changed in another, and
// that a webhook may change through an endpoint only what clients may.
func TestViews(t *testing.T) {
	h := serve(t, map[string]judge{"/v1": patch(`[{"op":"replace","path":"/spec/maxReplicas","value":9},{"op":"add","path":"/metadata/labels","value":{"x":"y"}}]`)})
	cfg := registrytest.Start(t)
	c := kubernetes.NewForConfigOrDie(cfg)
	h.configure(cfg, true, "v1", `rules: [{operations: ["*"], apiGroups: [autoscaling], apiVersions: [v1], resources: [horizontalpodautoscalers, horizontalpodautoscalers/status]}]`)
	hpa := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: "h"}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "d"}, MaxReplicas: 5,
	}}
	got, err := c.AutoscalingV2().HorizontalPodAutoscalers("default").Create(t.Context(), hpa, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Spec.MaxReplicas != 9 || len(got.Spec.Metrics) != 1 || got.Labels["x"] != "y" || len(got.ManagedFields) != 1 || strings.Contains(got.ManagedFields[0].FieldsV1.String(), "f:labels") {
		t.Errorf("%+v", got)
	}
	if r := h.seen("/v1"); r.Kind.Version != "v1" || r.RequestKind.Version != "v2" || !strings.Contains(string(r.Object.Raw), `"apiVersion":"autoscaling/v1"`) {
		t.Errorf("asked %+v about %s", r, r.Object.Raw)
	}
	h.judges["/v1"] = patch(`[{"op":"replace","path":"/spec/maxReplicas","value":3},{"op":"replace","path":"/status/currentReplicas","value":2}]`)
	if got, err = c.AutoscalingV2().HorizontalPodAutoscalers("default").UpdateStatus(t.Context(), got, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got.Spec.MaxReplicas != 9 || got.Status.CurrentReplicas != 2 {
		t.Errorf("%+v", got)
	}
	err = c.AutoscalingV2().HorizontalPodAutoscalers("default").Delete(t.Context(), "h", metav1.DeleteOptions{})
	if want := `Internal error occurred: admission webhook "v1.example.com" attempted to modify the object, which is not supported for this operation`; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	h.judges["/v1"] = allow
	if err := c.AutoscalingV1().HorizontalPodAutoscalers("default").Delete(t.Context(), "h", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	if r := h.seen("/v1"); r.RequestKind.Version != "v1" || r.Operation != "DELETE" {
		t.Errorf("asked %+v", r)
	}
}

// TestService holds that one behind a service is trusted by its name there.
func TestService(t *testing.T) {
	h := serve(t, map[string]judge{"/no": deny("no")})
	cfg := registrytest.Start(t)
	c := kubernetes.NewForConfigOrDie(cfg)
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "hook"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost"}}
	if _, err := c.CoreV1().Services("default").Create(t.Context(), svc, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	port := h.server.URL[strings.LastIndex(h.server.URL, ":")+1:]
	h.configure(cfg, false, "no", configMaps+`, clientConfig: {service: {namespace: default, name: hook, path: /no, port: `+port+`}}`)
	if _, err := c.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("x"), metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), "denied the request: no") {
		t.Error(err)
	}
}

// TestDryRun is about a webhook that older servers have let in.
func TestDryRun(t *testing.T) {
	s := registrytest.Run(t)
	c := kubernetes.NewForConfigOrDie(s.Client(registrytest.Admin))
	k := s.Rest.Kind(schema.GroupResource{Group: admissionregistrationv1.GroupName, Resource: "validatingwebhookconfigurations"})
	var old admissionregistrationv1.ValidatingWebhookConfiguration
	text := `{metadata: {name: old}, webhooks: [{name: old.example.com, sideEffects: Some, admissionReviewVersions: [v1], failurePolicy: Ignore, clientConfig: {url: "https://127.0.0.1:1/"}, ` + configMaps + `}]}`
	if err := yaml.UnmarshalStrict([]byte(text), &old); err != nil {
		t.Fatal(err)
	}
	value, err := k.Main().Wire.Encode(&old)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Rest.Store.Commit(t.Context(), registry.Op{Key: registry.Path(k.Definition, "", "old"), Value: value}); err != nil {
		t.Fatal(err)
	}
	_, err = c.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("x"), metav1.CreateOptions{DryRun: []string{"All"}})
	if want := `admission webhook "old.example.com" does not support dry run`; !apierrors.IsBadRequest(err) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if _, err := c.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("x"), metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
}

func TestConditions(t *testing.T) {
	h := serve(t, map[string]judge{"/no": deny("no")})
	cfg := registrytest.Start(t)
	c := kubernetes.NewForConfigOrDie(cfg)
	h.configure(cfg, false, "no", configMaps+`, matchConditions: [{name: named, expression: "object.metadata.name.startsWith('bad')"}, {name: other, expression: "object.data.a == 'b'"}]`)
	create := func(m *corev1.ConfigMap) error {
		_, err := c.CoreV1().ConfigMaps("default").Create(t.Context(), m, metav1.CreateOptions{})
		return err
	}
	if err := create(configMap("good")); err != nil {
		t.Error(err)
	}
	if err := create(configMap("bad")); err == nil || !strings.Contains(err.Error(), "denied the request") {
		t.Error(err)
	}
	if err := create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "bad"}}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "no such key: data") {
		t.Error(err)
	}
	got, err := c.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(t.Context(), "no", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got.Webhooks[0].MatchConditions[0].Expression = "object.("
	if _, err = c.AdmissionregistrationV1().ValidatingWebhookConfigurations().Update(t.Context(), got, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "compilation failed") {
		t.Error(err)
	}
}

// TestRestart holds that a server starts whatever webhooks refuse: they may be
// pods that only run when it does.
func TestRestart(t *testing.T) {
	store := memory.New()
	on := registrytest.With(func(cfg *assembly.Config) { cfg.Store = store })
	h := serve(t, map[string]judge{"/no": deny("no")})
	t.Run("before", func(t *testing.T) { h.configure(registrytest.Start(t, on), false, "no", everything) })
	h.paths()
	cfg := registrytest.Start(t, on, registrytest.Services("10.0.0.0/24"))
	if got := h.paths(); got != "" {
		t.Errorf("asked %s", got)
	}
	if _, err := kubernetes.NewForConfigOrDie(cfg).CoreV1().ConfigMaps("default").Create(t.Context(), configMap("x"), metav1.CreateOptions{}); err == nil {
		t.Error("a client is let through")
	}
}

// TestQuota holds that nothing is charged for what a webhook refuses.
func TestQuota(t *testing.T) {
	h := serve(t, map[string]judge{"/no": deny("no")})
	cfg := registrytest.Start(t)
	c := kubernetes.NewForConfigOrDie(cfg)
	hard := corev1.ResourceList{"count/configmaps": resource.MustParse("5")}
	q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}
	q, err := c.CoreV1().ResourceQuotas("default").Create(t.Context(), q, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	q.Status = corev1.ResourceQuotaStatus{Hard: hard, Used: corev1.ResourceList{"count/configmaps": resource.MustParse("1")}}
	if _, err := c.CoreV1().ResourceQuotas("default").UpdateStatus(t.Context(), q, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	h.configure(cfg, false, "no", configMaps)
	if _, err := c.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("x"), metav1.CreateOptions{}); err == nil {
		t.Fatal("it is let through")
	}
	q, err = c.CoreV1().ResourceQuotas("default").Get(t.Context(), "q", metav1.GetOptions{})
	if used := q.Status.Used["count/configmaps"]; err != nil || used.Value() != 1 {
		t.Errorf("used %v: %v", used.Value(), err)
	}
}

// TestAtOnce holds that webhooks which may only refuse do not wait for each other.
func TestAtOnce(t *testing.T) {
	both := make(chan struct{}, 2)
	meet := func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		both <- struct{}{}
		end := time.After(10 * time.Second)
		for len(both) < 2 {
			select {
			case <-end:
				return deny("alone")(r)
			case <-time.After(time.Millisecond):
			}
		}
		return allow(r)
	}
	h := serve(t, map[string]judge{"/x": meet, "/y": meet})
	cfg := registrytest.Start(t)
	h.configure(cfg, false, "x", configMaps)
	h.configure(cfg, false, "y", configMaps)
	if _, err := kubernetes.NewForConfigOrDie(cfg).CoreV1().ConfigMaps("default").Create(t.Context(), configMap("x"), metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
}
