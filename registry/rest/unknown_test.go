package rest_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/assembly"
	"github.com/knarr-dev/knarr/registry/registrytest"
)

// lost is a store whose answers to commits may be lost on their way.
type lost struct {
	registry.Store

	away atomic.Bool
}

func (l *lost) Commit(ctx context.Context, ops ...registry.Op) (int64, error) {
	rev, err := l.Store.Commit(ctx, ops...)
	if err == nil && strings.HasPrefix(ops[0].Key, "/registry/configmaps/") && l.away.Load() {
		return 0, fmt.Errorf("connection reset: %w", registry.ErrUnavailable)
	}
	return rev, err
}

// A write whose answer was lost may have been done, so it is not done again:
// its writer would be told that somebody else was faster.
func TestUnknown(t *testing.T) {
	store := &lost{}
	client := kubernetes.NewForConfigOrDie(registrytest.Start(t, registrytest.With(func(cfg *assembly.Config) {
		store.Store, cfg.Store = cfg.Store, store
	})))
	maps := client.CoreV1().ConfigMaps("default")
	made, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "m"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := maps.List(t.Context(), metav1.ListOptions{}); err != nil { // so that the cache has it
		t.Fatal(err)
	}
	store.away.Store(true)
	made.Data = map[string]string{"a": "b"}
	if _, err := maps.Update(t.Context(), made, metav1.UpdateOptions{}); !apierrors.IsInternalError(err) {
		t.Errorf("update: %v", err)
	}
	if _, err := maps.List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := maps.Delete(t.Context(), "m", metav1.DeleteOptions{}); !apierrors.IsInternalError(err) {
		t.Errorf("delete: %v", err)
	}
	store.away.Store(false)
	if got, err := maps.Get(t.Context(), "m", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("%v, %v", got, err)
	}
}
