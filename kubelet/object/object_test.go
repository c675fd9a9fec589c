package object

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
)

func configMap(version, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c", ResourceVersion: version},
		Data:       map[string]string{"k": value},
	}
}

func TestFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		client := fake.NewClientset()
		told := map[types.UID]int{}
		s := New(ctx, client, func(pod types.UID) { told[pod]++ })
		if _, err := s.ConfigMap(ctx, "p", "ns", "c"); !apierrors.IsNotFound(err) {
			t.Fatalf("of none: %v", err)
		}
		maps := client.CoreV1().ConfigMaps("ns")
		synctest.Wait()
		if _, err := maps.Create(ctx, configMap("1", "one"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		got, err := s.ConfigMap(ctx, "q", "ns", "c")
		if err != nil || got.Data["k"] != "one" || told["p"] != 1 || told["q"] != 0 {
			t.Fatalf("made: %v, %v, told %v", got, err, told)
		}
		if _, err := maps.Update(ctx, configMap("2", "two"), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got, err := s.ConfigMap(ctx, "q", "ns", "c"); err != nil || got.Data["k"] != "two" || told["p"] != 2 || told["q"] != 1 {
			t.Fatalf("changed: %v, %v, told %v", got, err, told)
		}
		if err := maps.Delete(ctx, "c", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := s.ConfigMap(ctx, "q", "ns", "c"); !apierrors.IsNotFound(err) || told["p"] != 3 {
			t.Fatalf("deleted: %v, told %v", err, told)
		}
		for _, pod := range []types.UID{"p", "q", "p"} {
			if err := s.release(ctx, pod); err != nil {
				t.Fatal(err)
			}
		}
		if len(s.entries) != 0 {
			t.Errorf("still has %v", s.entries)
		}
		synctest.Wait()
	})
}

// TestRefusedAtFirst has the authorizer lag behind.
func TestRefusedAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		client := fake.NewClientset(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s"}, Immutable: new(true)})
		refuse := 3
		client.PrependReactor("get", "secrets", func(ktesting.Action) (bool, runtime.Object, error) {
			refuse--
			return refuse >= 0, nil, apierrors.NewForbidden(corev1.Resource("secrets"), "s", nil)
		})
		began := time.Now()
		s := New(ctx, client, func(types.UID) { t.Error("nothing has changed") })
		if _, err := s.Secret(ctx, "p", "ns", "s"); err != nil || time.Since(began) > time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		synctest.Wait()
		for _, a := range client.Actions() {
			if a.GetVerb() == "watch" {
				t.Error("what is immutable is watched")
			}
		}
		refuse = 1000
		if _, err := s.Secret(ctx, "p", "ns", "other"); !apierrors.IsForbidden(err) {
			t.Errorf("what is always refused: %v", err)
		}
	})
}
