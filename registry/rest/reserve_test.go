package rest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/all"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/admit"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/memory"
	"github.com/knarr-dev/knarr/registry/patch"
	"github.com/knarr-dev/knarr/registry/rest"
)

// serve runs a service of all kinds on a store.
func serve(t *testing.T, store registry.Store) *rest.Service {
	t.Helper()
	svc := &rest.Service{
		Store: store, Cache: cache.New(store), Owners: patch.NewOwners(all.Scheme()),
		Now: time.Now, NameTail: func() string { return "abcde" },
	}
	serial := 0
	svc.NewUID = func() types.UID { serial++; return types.UID(fmt.Sprint("uid-", serial)) }
	svc.Admit = &admit.Chain{World: svc}
	for _, g := range all.Groups {
		for i := range g.Resources {
			svc.Add(&g.Resources[i])
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = svc.Cache.Run(ctx) // it ends with ctx
	}()
	t.Cleanup(func() { cancel(); <-ended })
	<-svc.Cache.Loaded()
	return svc
}

// reserving gives each config map a seat, the first that nobody has.
func reserving(svc *rest.Service, log *[]string) {
	seat := 0
	with := func(op registry.Op) rest.Commit {
		return func(_ context.Context, write func(...registry.Op) (int64, error)) (int64, error) {
			rev, err := write(op)
			*log = append(*log, fmt.Sprintf("commit %s: %v", op.Key, err))
			return rev, err
		}
	}
	svc.Kind(corev1.Resource("configmaps")).Reserve = func(_ context.Context, obj, old apis.Object) (rest.Commit, error) {
		m, _ := obj.(*corev1.ConfigMap)
		switch {
		case m == nil:
			return with(registry.Op{Key: "/seats/" + old.(*corev1.ConfigMap).Data["seat"], Old: registry.Unchecked}), nil
		case m.Data["seat"] != "":
			return nil, errors.New("seat is not for clients to choose")
		}
		seat++
		m.Data = map[string]string{"seat": fmt.Sprint(seat)}
		return with(registry.Op{Key: "/seats/" + fmt.Sprint(seat), Value: []byte("x")}), nil
	}
}

// TestReserve says what a Reserver can rely on: what it took is written with
// the object or not at all, and another is asked for where somebody else had
// it first.
func TestReserve(t *testing.T) {
	svc := serve(t, memory.New())
	ctx := t.Context()
	var log []string
	reserving(svc, &log)
	form := svc.Kind(corev1.Resource("configmaps")).Main()
	create := func(name string, c rest.Call) (rest.Written, error) {
		c.Namespace = "default"
		return form.Create(ctx, &c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	if _, err := svc.Store.Commit(ctx, registry.Op{Key: "/seats/1", Value: []byte("taken")}); err != nil {
		t.Fatal(err)
	}
	w, err := create("a", rest.Call{})
	if err != nil {
		t.Fatal(err)
	}
	if seat := w.Object.(*corev1.ConfigMap).Data["seat"]; seat != "2" {
		t.Errorf("seat %s", seat)
	}
	if r, err := svc.Store.Get(ctx, "/seats/2"); err != nil || fmt.Sprint(r.Rev) != w.Object.GetResourceVersion() {
		t.Errorf("seat at %d, object at %s: %v", r.Rev, w.Object.GetResourceVersion(), err)
	}
	if _, err := create("a", rest.Call{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("created twice: %v", err)
	}
	if w, err := create("b", rest.Call{DryRun: true}); err != nil || w.Object.(*corev1.ConfigMap).Data["seat"] != "4" {
		t.Errorf("dry run: %v %v", w.Object, err)
	}
	for _, key := range []string{"/seats/3", "/seats/4"} {
		if _, err := svc.Store.Get(ctx, key); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("%s is taken: %v", key, err)
		}
	}
	if _, err := form.Delete(ctx, &rest.Call{Namespace: "default", Name: "a"}, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := svc.Store.Get(ctx, "/seats/2"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("seat was not given back: %v", err)
	}
	want := []string{
		"commit /seats/1: /seats/1 stands at revision 2", "commit /seats/2: <nil>", // a
		"commit /seats/3: /registry/configmaps/default/a stands at revision 3", // a again
		"commit /seats/2: <nil>", // the deletion of a
	}
	if !slices.Equal(log, want) {
		t.Errorf("got\n%q\nwant\n%q", log, want)
	}
}

// TestRewrite changes what no client may change, and does it anew where
// somebody else was faster.
func TestRewrite(t *testing.T) {
	svc := serve(t, memory.New())
	ctx := t.Context()
	pods := svc.Kind(corev1.Resource("pods"))
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	call := &rest.Call{Namespace: "default", Name: "p"}
	if _, err := pods.Main().Create(ctx, call, pod); err != nil {
		t.Fatal(err)
	}
	tries := 0
	w, err := pods.Rewrite(ctx, call, func(obj apis.Object) error {
		if tries++; tries == 1 {
			if _, err := pods.Edit(ctx, call, func(other apis.Object) error {
				other.SetLabels(map[string]string{"a": "b"})
				return nil
			}); err != nil {
				return err
			}
		}
		p := obj.(*corev1.Pod)
		p.Spec.NodeName, p.Status.Message = "n", "bound"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got := w.Object.(*corev1.Pod)
	if tries != 2 || got.Labels["a"] != "b" || got.Spec.NodeName != "n" || got.Status.Message != "bound" || got.Generation != 1 {
		t.Errorf("after %d tries %v", tries, got)
	}
	if _, err := pods.Rewrite(ctx, call, func(apis.Object) error { return errors.New("no") }); err == nil {
		t.Error("an error of the change was lost")
	}
}

// A deaf store is one whose news do not arrive.
type deaf struct{ registry.Store }

func (deaf) Watch(ctx context.Context, _ registry.Watch, _ func(registry.Batch) error) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestUndo takes a change back that the cache has not seen: it must not be
// taken for no change at all.
func TestUndo(t *testing.T) {
	ctx := t.Context()
	call := &rest.Call{Namespace: "default", Name: "m"}
	svc := serve(t, memory.New())
	if _, err := svc.Kind(corev1.Resource("configmaps")).Main().Create(ctx, call, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "m"}}); err != nil {
		t.Fatal(err)
	}
	maps := serve(t, deaf{svc.Store}).Kind(corev1.Resource("configmaps"))
	for _, data := range []map[string]string{{"a": "b"}, nil, nil} {
		if _, err := maps.Edit(ctx, call, func(obj apis.Object) error {
			obj.(*corev1.ConfigMap).Data = data
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		obj, err := serve(t, svc.Store).Lookup(ctx, maps.GroupResource(), "default", "m")
		if err != nil {
			t.Fatal(err)
		}
		if got := obj.(*corev1.ConfigMap).Data; len(got) != len(data) {
			t.Errorf("asked for %v, there is %v", data, got)
		}
	}
}
