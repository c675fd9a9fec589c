package patch

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	"sigs.k8s.io/randfill"
	"sigs.k8s.io/yaml"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/all"
	"github.com/knarr-dev/knarr/registry/wire"
)

// only is the forms of a kind that is served in one version.
type only struct{ *apis.Definition }

func (o only) New(schema.GroupVersion) (apis.Object, error) { return o.Definition.New(), nil }

// Convert is part of Forms.
func (o only) Convert(obj apis.Object, _ schema.GroupVersion) (apis.Object, error) { return obj, nil }

func (o only) Default(obj apis.Object) { o.Definition.Default(obj) }

const pod = `
metadata:
  name: web-7d9f8b6c5-000001
  namespace: crowd
  labels: {app.kubernetes.io/name: web, pod-template-hash: 7d9f8b6c5, batch: "1"}
  annotations: {prometheus.io/port: "9090"}
  ownerReferences:
  - {apiVersion: apps/v1, kind: ReplicaSet, name: web-7d9f8b6c5, uid: 0b1c9a52-5f0e-4c5c-9b0d-3f6f7a8e2d11, controller: true, blockOwnerDeletion: true}
spec:
  nodeName: node-0001
  containers:
  - name: web
    image: registry.example.com/shop/web:4.11.2
    args: ["--listen=:8080", "--metrics=:9090"]
    ports: [{name: http, containerPort: 8080}]
    env:
    - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: DATABASE_URL, value: postgres://shop}
    resources: {requests: {cpu: 100m, memory: 128Mi}, limits: {cpu: "1", memory: 512Mi}}
    volumeMounts: [{name: config, mountPath: /etc/web, readOnly: true}]
    readinessProbe: {httpGet: {path: /readyz, port: http}}
  volumes:
  - {name: config, configMap: {name: web-config}}
`

// stock is the account of d's fields with nothing done to it for speed.
func stock(conv managedfields.TypeConverter, d *apis.Definition) (*managedfields.FieldManager, error) {
	c := convertor{forms: only{d}}
	return managedfields.NewDefaultFieldManager(conv, c, c, c, d.GroupVersionKind, d.GroupVersion(), "", nil)
}

// filler fills objects at random.
func filler(seed int64) *randfill.Filler {
	words := []string{"", "web", "a b", "x-y"}
	if seed%2 == 1 {
		words = append(words, "x<y", "café", "\"", "\xff")
	}
	return randfill.NewWithSeed(seed).NilChance(.3).NumElements(0, 2).MaxDepth(8).Funcs(
		func(q *resource.Quantity, c randfill.Continue) {
			*q = *resource.NewMilliQuantity(c.Int63n(1<<40), resource.DecimalSI)
		},
		func(r *runtime.RawExtension, _ randfill.Continue) { r.Raw = []byte(`{"a":[1,{"b":null}]}`) },
		func(s *string, c randfill.Continue) { *s = words[c.Intn(len(words))] + strconv.Itoa(c.Intn(30)) },
		func(m *[]metav1.ManagedFieldsEntry, _ randfill.Continue) { *m = nil },
	)
}

// accounts returns the account in obj by manager, the times of which are only
// there or not: it may take longer than a second to make two.
func accounts(obj runtime.Object) string {
	var all []string
	for _, e := range obj.(apis.Object).GetManagedFields() {
		all = append(all, fmt.Sprintln(e.Manager, e.Operation, e.APIVersion, e.Subresource, e.Time == nil, e.FieldsV1.GetRawString()))
	}
	slices.Sort(all)
	return strings.Join(all, "")
}

// TestLikeStock makes, changes and applies objects of every kind, and holds
// that they and the account of their fields are what the field manager makes
// of them by itself.
func TestLikeStock(t *testing.T) {
	conv, owners := applyconfigurations.NewTypeConverter(all.Scheme()), NewOwners(all.Scheme())
	for _, g := range all.Groups {
		for i := range g.Resources {
			d := &g.Resources[i]
			if !d.Stored() {
				continue
			}
			t.Run(d.GroupVersionKind.GroupKind().String(), func(t *testing.T) {
				m, err := stock(conv, d)
				if err != nil {
					t.Fatal(err)
				}
				k := &likeness{T: t, stock: m, ours: owners.For(d.GroupVersionKind, only{d}, "", nil), d: d}
				for seed := range int64(2) {
					k.try(filler(seed), rand.New(rand.NewPCG(1, uint64(seed))))
				}
			})
		}
	}
}

// A likeness compares two accounts of one kind's fields.
type likeness struct {
	*testing.T
	stock *managedfields.FieldManager
	ours  *Fields
	d     *apis.Definition
}

func (k *likeness) try(fill *randfill.Filler, dice *rand.Rand) {
	a, b := k.object(fill), k.object(fill)
	k.create(b)
	made := k.create(a)
	changed := k.update(made, b)
	for range 4 {
		u, err := runtime.DefaultUnstructuredConverter.ToUnstructured([]apis.Object{a, b}[dice.IntN(2)])
		if err != nil {
			k.Fatal(err)
		}
		thin(u, dice)
		for range 2 { // the second time nothing is new
			changed = k.apply(changed, u, []string{"one", "two"}[dice.IntN(2)], dice.IntN(2) == 0)
		}
	}
}

func (k *likeness) object(fill *randfill.Filler) apis.Object {
	o := k.d.New()
	fill.Fill(o)
	o.SetName("name")
	o.SetManagedFields(nil)
	k.d.Default(o)
	o.GetObjectKind().SetGroupVersionKind(k.d.GroupVersionKind)
	return o
}

// thin takes away some of what is in a map, and what no client applies.
func thin(u map[string]any, dice *rand.Rand) {
	for key, v := range u {
		switch inner, ok := v.(map[string]any); {
		case key == "apiVersion" || key == "kind":
		case dice.IntN(3) == 0:
			delete(u, key)
		case ok:
			thin(inner, dice)
		}
	}
	if m, ok := u["metadata"].(map[string]any); ok {
		delete(m, "managedFields")
		delete(m, "uid")
	}
}

func (k *likeness) create(obj apis.Object) apis.Object {
	k.Helper()
	want := k.stock.UpdateNoErrors(clone(k.d.New(), k.d), clone(obj, k.d), "someone")
	got, err := k.ours.Create(clone(obj, k.d), "someone")
	if err != nil {
		k.Fatal(err)
	}
	if d := cmp.Diff(accounts(want), accounts(got)); d != "" {
		k.Fatalf("account of a new object differs:\n%s", d)
	}
	return got
}

func (k *likeness) update(old, obj apis.Object) apis.Object {
	k.Helper()
	want := k.stock.UpdateNoErrors(clone(old, k.d), clone(obj, k.d), "someone")
	got, err := k.ours.Update(clone(old, k.d), clone(obj, k.d), "someone")
	if err != nil {
		k.Fatal(err)
	}
	if d := cmp.Diff(accounts(want), accounts(got)); d != "" {
		k.Fatalf("account of an update differs:\n%s", d)
	}
	return got
}

func (k *likeness) apply(live apis.Object, u map[string]any, manager string, force bool) apis.Object {
	k.Helper()
	body := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(u)}
	want, werr := k.stock.Apply(clone(live, k.d), body.DeepCopy(), manager, force)
	got, err := k.ours.apply(clone(live, k.d), body.DeepCopy(), manager, force)
	if (err == nil) != (werr == nil) { // texts are in the random order of maps
		k.Fatalf("apply: %v\nwant: %v", err, werr)
	}
	if err != nil {
		return live
	}
	if d := cmp.Diff(accounts(want), accounts(got)); d != "" {
		k.Fatalf("account of an apply differs:\n%s", d)
	}
	w, g := want.DeepCopyObject().(apis.Object), got.DeepCopyObject().(apis.Object)
	w.SetManagedFields(nil)
	g.SetManagedFields(nil)
	if d := cmp.Diff(w, g, cmpopts.EquateEmpty()); d != "" { // in what is stored they are the same
		k.Fatalf("what apply makes differs:\n%s", d)
	}
	return got
}

func clone(o apis.Object, d *apis.Definition) apis.Object {
	c := o.DeepCopyObject().(apis.Object)
	c.GetObjectKind().SetGroupVersionKind(d.GroupVersionKind)
	return c
}

func pods(tb testing.TB) (*Fields, *corev1.Pod) {
	tb.Helper()
	for _, g := range all.Groups {
		for i := range g.Resources {
			d := &g.Resources[i]
			if d.Plural != "pods" || d.Group != "" {
				continue
			}
			p := d.New()
			if err := yaml.UnmarshalStrict([]byte(pod), p); err != nil {
				tb.Fatal(err)
			}
			d.Default(p)
			return NewOwners(all.Scheme()).For(d.GroupVersionKind, only{d}, "", []string{"status"}), p.(*corev1.Pod)
		}
	}
	tb.Fatal("no pods")
	return nil, nil
}

// A pod, and whatever else is made all the time, is accounted for without
// the field manager.
func TestPodsAreNotOdd(t *testing.T) {
	f, p := pods(t)
	b, err := f.blank()
	if err != nil {
		t.Fatal(err)
	}
	if !f.create(b, p, "someone") {
		t.Error("a pod is left to the field manager")
	}
}

// An applied body may be JSON or YAML, and both are told of keys that stand
// twice by the lines of YAML.
func TestApplyReadsJSON(t *testing.T) {
	f, p := pods(t)
	for _, c := range []struct{ body, want, fault string }{
		{`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","labels":{"a":"1"}},"spec":{"priority":7}}`, "1", ""},
		{"apiVersion: v1\nkind: Pod\nmetadata: {name: x, labels: {a: '1'}}\nspec: {priority: 7}\n", "1", ""},
		{"{apiVersion: v1, kind: Pod, metadata: {name: x, labels: {a: '1'}}, spec: {priority: 7}}", "1", ""},
		{`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","labels":{"a":"0","a":"1"}},"spec":{"priority":7}}`, "1", `line 1: key "a" already set in map`},
	} {
		obj, warnings, err := (&Patch{Type: types.ApplyPatchType, Body: []byte(c.body), Strict: wire.Tell, Manager: "m"}).On(nil, p.DeepCopy(), f)
		if err != nil {
			t.Errorf("%s: %v", c.body, err)
			continue
		}
		if got := obj.(*corev1.Pod); got.Labels["a"] != c.want || *got.Spec.Priority != 7 {
			t.Errorf("%s: made %v, %v", c.body, got.Labels, got.Spec.Priority)
		}
		if all := strings.Join(warnings, ""); !strings.Contains(all, c.fault) || (c.fault == "") != (all == "") {
			t.Errorf("%s: warns %q, want %q", c.body, all, c.fault)
		}
	}
}

func BenchmarkCreate(b *testing.B) {
	f, p := pods(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Create(p.DeepCopy(), "bench"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkApply(b *testing.B) {
	f, p := pods(b)
	o, err := f.Update(&corev1.Pod{}, p, "bench")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": p.Name, "labels": map[string]any{"bench": string(rune('a' + i%20))}}}}
		if o, err = f.apply(o, u, "bench", false); err != nil {
			b.Fatal(err)
		}
	}
}
