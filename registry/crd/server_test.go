package crd_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/knarr-dev/knarr/registry/assembly"
	"github.com/knarr-dev/knarr/registry/memory"
	"github.com/knarr-dev/knarr/registry/registrytest"
)

var (
	crds   = apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")
	gadget = schema.GroupVersionResource{Group: "test.example.com", Version: "v1", Resource: "gadgets"}
)

const gadgets = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.test.example.com}
spec:
  group: test.example.com
  scope: Namespaced
  names: {plural: gadgets, kind: Gadget}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          size: {type: integer, default: 1}
`

func object(t testing.TB, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	return u
}

// client is how a test reaches a server.
func client(t testing.TB, cfg *rest.Config) dynamic.Interface {
	t.Helper()
	c, err := dynamic.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func define(t testing.TB, c dynamic.Interface, text string) {
	t.Helper()
	if _, err := c.Resource(crds).Create(t.Context(), object(t, text), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func make(t testing.TB, c dynamic.Interface, name string) *unstructured.Unstructured {
	t.Helper()
	u := object(t, fmt.Sprintf("{apiVersion: test.example.com/v1, kind: Gadget, metadata: {name: %s}}", name))
	u, err := c.Resource(gadget).Namespace("default").Create(t.Context(), u, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// events are the types and names that a watch tells until it ends.
func events(t testing.TB, w watch.Interface) (all []string) {
	t.Helper()
	end := time.After(10 * time.Second)
	for {
		select {
		case e, more := <-w.ResultChan():
			if !more {
				return all
			}
			all = append(all, string(e.Type)+" "+e.Object.(metav1.Object).GetName())
		case <-end:
			t.Fatalf("the watch does not end; so far %v", all)
		}
	}
}

// TestWatchEnds: a watch of custom objects tells of those that go with their
// definition, and then ends; so it does when the definition changes, and can
// go on from where it was.
func TestWatchEnds(t *testing.T) {
	c := client(t, registrytest.Start(t))
	define(t, c, gadgets)
	a := make(t, c, "a")
	w, err := c.Resource(gadget).Watch(t.Context(), metav1.ListOptions{ResourceVersion: a.GetResourceVersion()})
	if err != nil {
		t.Fatal(err)
	}
	b := make(t, c, "b")
	change := []byte(`[{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/size/default", "value": 2}]`)
	if _, err := c.Resource(crds).Patch(t.Context(), "gadgets.test.example.com", types.JSONPatchType, change, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, want := events(t, w), []string{"ADDED b"}; !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	if w, err = c.Resource(gadget).Watch(t.Context(), metav1.ListOptions{ResourceVersion: a.GetResourceVersion()}); err != nil {
		t.Fatal(err)
	}
	if size, _, err := unstructured.NestedInt64(b.Object, "size"); err != nil || size != 1 {
		t.Errorf("b was made of size %d: %v", size, err)
	}
	if err := c.Resource(crds).Delete(t.Context(), "gadgets.test.example.com", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	got := events(t, w)
	slices.Sort(got)
	if want := []string{"ADDED b", "DELETED a", "DELETED b"}; !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	if _, err := c.Resource(gadget).List(t.Context(), metav1.ListOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("list after the end: %v", err)
	}
	// The name is free again at once.
	await(t, "the definition to be gone", func() bool {
		_, err := c.Resource(crds).Get(t.Context(), "gadgets.test.example.com", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	define(t, c, gadgets)
	make(t, c, "a")
}

// await asks until something is so.
func await(t testing.TB, what string, is func() bool) {
	t.Helper()
	tick, end := time.NewTicker(5*time.Millisecond), time.After(10*time.Second)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// TestFinalizerHoldsDefinition: a definition stays until the last of its
// objects is gone, and takes no new ones meanwhile.
func TestFinalizerHoldsDefinition(t *testing.T) {
	c := client(t, registrytest.Start(t))
	define(t, c, gadgets)
	u := object(t, "{apiVersion: test.example.com/v1, kind: Gadget, metadata: {name: a, finalizers: [example.com/held]}}")
	in := c.Resource(gadget).Namespace("default")
	if _, err := in.Create(t.Context(), u, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Resource(crds).Delete(t.Context(), "gadgets.test.example.com", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, "the object to be asked to go", func() bool {
		u, err := in.Get(t.Context(), "a", metav1.GetOptions{})
		return err == nil && u.GetDeletionTimestamp() != nil
	})
	u.SetName("b")
	await(t, "new objects to be refused", func() bool {
		_, err := in.Create(t.Context(), u, metav1.CreateOptions{DryRun: []string{"All"}})
		return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "create not allowed while custom resource definition is terminating")
	})
	if _, err := in.Patch(t.Context(), "a", types.MergePatchType, []byte(`{"metadata": {"finalizers": null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, "the definition to be gone", func() bool {
		_, err := c.Resource(crds).Get(t.Context(), "gadgets.test.example.com", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

// TestOtherServer: what is defined by one server is served by all that share
// its store, and by one that starts later, with the history of its objects.
func TestOtherServer(t *testing.T) {
	store := memory.New()
	on := registrytest.With(func(c *assembly.Config) { c.Store = store })
	one, two := client(t, registrytest.Start(t, on)), client(t, registrytest.Start(t, on))
	define(t, one, gadgets)
	a := make(t, two, "a")
	b := make(t, one, "b")
	three := client(t, registrytest.Start(t, on))
	got, err := three.Resource(gadget).Namespace("default").Get(t.Context(), "a", metav1.GetOptions{})
	if err != nil || got.GetUID() != a.GetUID() {
		t.Errorf("a is %v: %v", got, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	w, err := three.Resource(gadget).Watch(ctx, metav1.ListOptions{ResourceVersion: a.GetResourceVersion()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if e := <-w.ResultChan(); e.Type != watch.Added || e.Object.(metav1.Object).GetUID() != b.GetUID() {
		t.Errorf("event %v of %v, want b", e.Type, e.Object)
	}
	if err := one.Resource(crds).Delete(t.Context(), "gadgets.test.example.com", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, "it to be gone from the other server", func() bool {
		_, err := two.Resource(gadget).List(t.Context(), metav1.ListOptions{})
		return apierrors.IsNotFound(err)
	})
}

// TestStoredAsUpstream: objects stand in the store at the stock server's key,
// as JSON of the version that is stored.
func TestStoredAsUpstream(t *testing.T) {
	store := memory.New()
	c := client(t, registrytest.Start(t, registrytest.With(func(c *assembly.Config) { c.Store = store })))
	define(t, c, gadgets)
	make(t, c, "a")
	r, err := store.Get(t.Context(), "/registry/test.example.com/gadgets/default/a")
	if err != nil {
		t.Fatal(err)
	}
	var stored map[string]any
	if err := json.Unmarshal(r.Value, &stored); err != nil {
		t.Fatal(err)
	}
	if stored["kind"] != "Gadget" || stored["apiVersion"] != "test.example.com/v1" || stored["size"] != 1.0 {
		t.Errorf("stored %s", r.Value)
	}
}

// TestDiscoveryChanges: the aggregated document tells of a new kind, and has
// another tag; and so do the OpenAPI documents, but those of other groups.
func TestDiscoveryChanges(t *testing.T) {
	cfg := registrytest.Start(t)
	kube, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	before, err := kube.OpenAPIV3().Paths()
	if err != nil {
		t.Fatal(err)
	}
	c := client(t, cfg)
	define(t, c, gadgets)
	make(t, c, "a")
	await(t, "discovery to tell of gadgets", func() bool {
		lists, err := discovery.ServerPreferredNamespacedResources(kube.Discovery())
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(lists, func(l *metav1.APIResourceList) bool {
			return l.GroupVersion == "test.example.com/v1" && len(l.APIResources) == 1 && l.APIResources[0].SingularName == "gadget"
		})
	})
	after, err := kube.OpenAPIV3().Paths()
	if err != nil {
		t.Fatal(err)
	}
	if after["apis/test.example.com/v1"] == nil {
		t.Error("there is no document of test.example.com/v1")
	}
	if before["apis/apps/v1"].ServerRelativeURL() != after["apis/apps/v1"].ServerRelativeURL() {
		t.Error("the document of apps/v1 has another tag")
	}
}

// TestQuota: custom objects are counted.
func TestQuota(t *testing.T) {
	cfg := registrytest.Start(t)
	kube, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	hard := corev1.ResourceList{"count/gadgets.test.example.com": resource.MustParse("1")}
	q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}
	if q, err = kube.CoreV1().ResourceQuotas("default").Create(t.Context(), q, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	q.Status = corev1.ResourceQuotaStatus{Hard: hard, Used: corev1.ResourceList{"count/gadgets.test.example.com": resource.MustParse("0")}}
	if _, err := kube.CoreV1().ResourceQuotas("default").UpdateStatus(t.Context(), q, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	c := client(t, cfg)
	define(t, c, gadgets)
	make(t, c, "a")
	u := object(t, "{apiVersion: test.example.com/v1, kind: Gadget, metadata: {name: b}}")
	if _, err := c.Resource(gadget).Namespace("default").Create(t.Context(), u, metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("the second one: %v, want it to be more than the quota", err)
	}
}

// TestDefinitionAppliedAndOwned: definitions are applied by their own schema.
func TestDefinitionAppliedAndOwned(t *testing.T) {
	c := client(t, registrytest.Start(t))
	text, err := json.Marshal(object(t, gadgets))
	if err != nil {
		t.Fatal(err)
	}
	force := true
	u, err := c.Resource(crds).Patch(t.Context(), "gadgets.test.example.com", types.ApplyPatchType, text, metav1.PatchOptions{FieldManager: "me", Force: &force})
	if err != nil {
		t.Fatal(err)
	}
	if f := u.GetManagedFields(); len(f) != 1 || f[0].Operation != metav1.ManagedFieldsOperationApply {
		t.Errorf("owned by %v", f)
	}
	var crd apiextensionsv1.CustomResourceDefinition
	await(t, "it to be established", func() bool {
		u, err := c.Resource(crds).Get(t.Context(), "gadgets.test.example.com", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &crd); err != nil {
			t.Fatal(err)
		}
		return len(crd.Status.Conditions) == 2
	})
	if _, err := c.Resource(crds).Patch(t.Context(), "gadgets.test.example.com", types.ApplyPatchType, text, metav1.PatchOptions{FieldManager: "me"}); err != nil {
		t.Error(err)
	}
}
