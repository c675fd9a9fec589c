package policy_test

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/knarr-dev/knarr/registry/registrytest"
)

// create creates what stands in YAML.
func create(t *testing.T, cfg *rest.Config, objects string) {
	t.Helper()
	client := dynamic.NewForConfigOrDie(cfg)
	for doc := range strings.SplitSeq(objects, "\n---\n") {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &u.Object); err != nil {
			t.Fatal(err)
		}
		gvk := u.GroupVersionKind()
		plural := strings.ToLower(gvk.Kind) + "s"
		if base, y := strings.CutSuffix(plural, "ys"); y {
			plural = base + "ies"
		}
		r := client.Resource(gvk.GroupVersion().WithResource(plural)).Namespace(u.GetNamespace())
		if _, err := r.Create(t.Context(), u, metav1.CreateOptions{}); err != nil {
			t.Fatalf("create %s %s: %v", gvk.Kind, u.GetName(), err)
		}
	}
}

// rule is what most policies here are about.
const rule = `matchConstraints: {resourceRules: [{operations: [CREATE, UPDATE], apiGroups: [""], apiVersions: [v1], resources: [configmaps]}]}`

func policy(spec string) string {
	return "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\nmetadata: {name: p}\nspec:\n  " + rule + "\n  " + spec
}

func binding(spec string) string {
	return "\n---\napiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicyBinding\nmetadata: {name: b}\nspec: {policyName: p, " + spec + "}"
}

// warned keeps what clients are warned of.
type warned struct{ texts []string }

func (w *warned) HandleWarningHeader(_ int, _, text string) { w.texts = append(w.texts, text) }

func TestValidating(t *testing.T) {
	const denied = `configmaps "new" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: `
	const param = "\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: limits, namespace: default, labels: {of: limits}}\nstringData: {least: \"3\"}"
	params := "paramKind: {apiVersion: v1, kind: Secret}\n  "
	for _, c := range []struct {
		name, objects string
		want, warns   string
		reason        metav1.StatusReason
	}{
		{"holds", policy(`validations: [{expression: "object.data.n == '1'"}]`) + binding("validationActions: [Deny]"), "", "", ""},
		{"without a binding", policy(`validations: [{expression: "false"}]`), "", "", ""},
		{
			"does not hold", policy(`validations: [{expression: " object.data.n == '2'"}]`) + binding("validationActions: [Deny]"),
			denied + "failed expression: object.data.n == '2'", "", metav1.StatusReasonInvalid,
		},
		{
			"message", policy(`validations: [{expression: "false", message: no way, reason: Forbidden}]`) + binding("validationActions: [Deny]"),
			denied + "no way", "", metav1.StatusReasonForbidden,
		},
		{"computed message", policy(`validations: [{expression: "false", message: nay, messageExpression: "object.metadata.name + ' is ' + namespaceObject.metadata.name"}]`) +
			binding("validationActions: [Deny]"), denied + "new is default", "", metav1.StatusReasonInvalid},
		{"variables", policy("variables: [{name: num, expression: \"object.data.n\"}, {name: two, expression: \"variables.num + variables.num\"}]\n"+
			"  validations: [{expression: \"variables.two == '22'\", messageExpression: \"'two is ' + variables.two\"}]") +
			binding("validationActions: [Deny]"), denied + "two is 11", "", metav1.StatusReasonInvalid},
		{
			"warning", policy(`validations: [{expression: "false", message: beware}]`) + binding("validationActions: [Warn, Audit]"), "",
			"Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': beware", "",
		},
		{"the request", policy(`validations: [{expression: "request.operation == 'CREATE' && request.name == 'new' && oldObject == null && authorizer.group('').resource('pods').check('get').allowed()"}]`) +
			binding("validationActions: [Deny]"), "", "", ""},
		{
			"an error", policy(`validations: [{expression: "object.data.none == 'x'"}]`) + binding("validationActions: [Deny]"),
			denied + "expression 'object.data.none == 'x'' resulted in error: no such key: none", "", metav1.StatusReasonInvalid,
		},
		{"an error that does not matter", policy("failurePolicy: Ignore\n  validations: [{expression: \"object.data.none == 'x'\"}]") + binding("validationActions: [Deny]"), "", "", ""},
		{"a condition", policy("matchConditions: [{name: c, expression: \"request.name != 'new'\"}]\n  validations: [{expression: \"false\"}]") +
			binding("validationActions: [Deny]"), "", "", ""},
		{"a binding elsewhere", policy(`validations: [{expression: "false"}]`) +
			binding("validationActions: [Deny], matchResources: {namespaceSelector: {matchLabels: {a: b}}}"), "", "", ""},
		{
			"a parameter", policy(params+`validations: [{expression: "object.data.n == params.stringData.least || string(params.data.least) == ''", messageExpression: "string(params.kind)"}]`) +
				param + binding("validationActions: [Deny], paramRef: {name: limits, parameterNotFoundAction: Deny}"),
			denied + "expression", "", metav1.StatusReasonInvalid,
		},
		{
			"parameters by label", policy(params+`validations: [{expression: "params.metadata.name == 'x'", messageExpression: "string(params.kind + params.metadata.name)"}]`) +
				param + binding("validationActions: [Deny], paramRef: {selector: {matchLabels: {of: limits}}, parameterNotFoundAction: Deny}"),
			denied + "Secretlimits", "", metav1.StatusReasonInvalid,
		},
		{
			"no parameter", policy(params+`validations: [{expression: "false"}]`) +
				binding("validationActions: [Deny], paramRef: {name: limits, parameterNotFoundAction: Deny}"),
			denied + "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction", "", metav1.StatusReasonInvalid,
		},
		{"no parameter needed", policy(params+`validations: [{expression: "false"}]`) +
			binding("validationActions: [Deny], paramRef: {name: limits, parameterNotFoundAction: Allow}"), "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := registrytest.Start(t)
			create(t, cfg, c.objects)
			var w warned
			cfg.WarningHandler = &w
			_, err := kubernetes.NewForConfigOrDie(cfg).CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Name: "new"}, Data: map[string]string{"n": "1"},
			}, metav1.CreateOptions{})
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != c.want && (c.want == "" || !strings.HasPrefix(got, c.want)) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if reason := apierrors.ReasonForError(err); err != nil && reason != c.reason {
				t.Errorf("for reason %q, want %q", reason, c.reason)
			}
			if got := strings.Join(w.texts, "; "); got != c.warns {
				t.Errorf("warned %q, want %q", got, c.warns)
			}
		})
	}
}

func mutating(more, mutations string) string {
	return "apiVersion: admissionregistration.k8s.io/v1\nkind: MutatingAdmissionPolicy\nmetadata: {name: p}\nspec:\n" +
		`  matchConstraints: {resourceRules: [{operations: [CREATE], apiGroups: [apps], apiVersions: [v1], resources: [deployments]}]}` +
		"\n  reinvocationPolicy: IfNeeded\n" + more + "  mutations:\n" + mutations +
		"\n---\napiVersion: admissionregistration.k8s.io/v1\nkind: MutatingAdmissionPolicyBinding\nmetadata: {name: b}\nspec: {policyName: p}"
}

func TestMutating(t *testing.T) {
	for _, c := range []struct {
		name, objects, want string
		check               func(d *appsv1.Deployment) bool
	}{
		{
			"apply", mutating("", `  - {patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{metadata: Object.metadata{annotations: {'a': 'b'}}, spec: Object.spec{replicas: 3}}"}}`), "",
			func(d *appsv1.Deployment) bool {
				return *d.Spec.Replicas == 3 && d.Annotations["a"] == "b" && d.Annotations["was"] == "there" && d.Spec.Template.Spec.Containers[0].Image == "i"
			},
		},
		{
			"a list is merged by its keys", mutating("", `  - {patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: [Object.spec.template.spec.containers{name: 'more', image: 'x'}]}}}}"}}`), "",
			func(d *appsv1.Deployment) bool {
				cs := d.Spec.Template.Spec.Containers
				return len(cs) == 2 && cs[1].Name == "more" && cs[1].TerminationMessagePath != ""
			},
		},
		{
			"patch", mutating("  variables: [{name: v, expression: \"object.spec.replicas + 1\"}]\n",
				`  - {patchType: JSONPatch, jsonPatch: {expression: "[JSONPatch{op: 'add', path: '/metadata/annotations/' + jsonpatch.escapeKey('a/b'), value: string(variables.v)}, JSONPatch{op: 'add', path: '/spec/template/spec/tolerations', value: [Object.spec.template.spec.tolerations{key: 'k'}]}]"}}`), "",
			func(d *appsv1.Deployment) bool {
				return d.Annotations["a/b"] == "2" && d.Spec.Template.Spec.Tolerations[0].Key == "k"
			},
		},
		{
			"a test that fails", mutating("", `  - {patchType: JSONPatch, jsonPatch: {expression: "[JSONPatch{op: 'test', path: '/spec/replicas', value: 7}, JSONPatch{op: 'replace', path: '/spec/replicas', value: 8}]"}}`), "",
			func(d *appsv1.Deployment) bool { return *d.Spec.Replicas == 1 },
		},
		{
			"an error", mutating("", `  - {patchType: JSONPatch, jsonPatch: {expression: "[JSONPatch{op: 'replace', path: '/none/x', value: 8}]"}}`),
			"policy 'p' with binding 'b' denied request: JSON Patch: replace operation does not apply", nil,
		},
		{
			"an error that does not matter", mutating("  failurePolicy: Ignore\n", `  - {patchType: JSONPatch, jsonPatch: {expression: "[JSONPatch{op: 'replace', path: '/none/x', value: 8}]"}}`), "",
			func(d *appsv1.Deployment) bool { return *d.Spec.Replicas == 1 },
		},
		{
			"what is made is held to the rules", mutating("", `  - {patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{spec: Object.spec{replicas: -1}}"}}`),
			`Deployment.apps "new" is invalid: spec.replicas: Invalid value: -1`, nil,
		},
		{
			"a type that is no field's", mutating("", `  - {patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{spec: Object.wrong{replicas: 1}}"}}`),
			`policy 'p' with binding 'b' denied request: type mismatch: unexpected type name "Object.wrong"`, nil,
		},
		{
			"what is replaced as a whole", mutating("", `  - {patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'a': 'c'}}}}"}}`),
			"policy 'p' with binding 'b' denied request: error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.selector", nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := registrytest.Start(t)
			create(t, cfg, c.objects)
			labels := map[string]string{"a": "b"}
			d, err := kubernetes.NewForConfigOrDie(cfg).AppsV1().Deployments("default").Create(t.Context(), &appsv1.Deployment{
				ObjectMeta: metav1.ObjectMeta{Name: "new", Annotations: map[string]string{"was": "there"}},
				Spec: appsv1.DeploymentSpec{
					Selector: &metav1.LabelSelector{MatchLabels: labels},
					Template: corev1.PodTemplateSpec{
						ObjectMeta: metav1.ObjectMeta{Labels: labels},
						Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
					},
				},
			}, metav1.CreateOptions{})
			switch {
			case err != nil && (c.want == "" || !strings.HasPrefix(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			case err == nil && c.want != "":
				t.Errorf("made, want %q", c.want)
			case err == nil && !c.check(d):
				t.Errorf("made as %+v", d)
			}
		})
	}
}

// TestExempt shows that a policy cannot keep anybody from taking it away.
func TestExempt(t *testing.T) {
	cfg := registrytest.Start(t)
	all := strings.Replace(policy(`validations: [{expression: "false"}]`), rule,
		`matchConstraints: {resourceRules: [{operations: ["*"], apiGroups: ["*"], apiVersions: ["*"], resources: ["*"]}]}`, 1)
	create(t, cfg, all+binding("validationActions: [Deny]"))
	client := dynamic.NewForConfigOrDie(cfg)
	group := schema.GroupVersion{Group: "admissionregistration.k8s.io", Version: "v1"}
	_, err := kubernetes.NewForConfigOrDie(cfg).CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
	if err == nil || !strings.Contains(err.Error(), "denied request") {
		t.Errorf("create a namespace: %v", err)
	}
	if err := client.Resource(group.WithResource("validatingadmissionpolicies")).Delete(t.Context(), "p", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}
