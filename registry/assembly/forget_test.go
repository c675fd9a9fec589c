package assembly_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/knarr-dev/knarr/registry/assembly"
	"github.com/knarr-dev/knarr/registry/registrytest"
)

// TestTokenExpires goes on with a list whose history is being forgotten: the
// token is refused in time, and the one that comes with the refusal goes on
// with what there is now.
func TestTokenExpires(t *testing.T) {
	client := kubernetes.NewForConfigOrDie(registrytest.Start(t, registrytest.With(func(cfg *assembly.Config) {
		cfg.Compact = 50 * time.Millisecond
	})))
	maps := client.CoreV1().ConfigMaps("default")
	for _, name := range []string{"a", "b", "c"} {
		if _, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	first, err := maps.List(t.Context(), metav1.ListOptions{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "d"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err) // so that the list is of the past
	}
	retry := time.NewTicker(10 * time.Millisecond)
	defer retry.Stop()
	token := ""
	for limit := time.After(20 * time.Second); token == ""; {
		_, err := maps.List(t.Context(), metav1.ListOptions{Limit: 1, Continue: first.Continue})
		if apierrors.IsResourceExpired(err) {
			token = err.(apierrors.APIStatus).Status().Continue
			break
		}
		select {
		case <-retry.C:
		case <-limit:
			t.Fatalf("the token does not expire: %v", err)
		}
	}
	rest, err := maps.List(t.Context(), metav1.ListOptions{Continue: token})
	if err != nil {
		t.Fatal(err)
	}
	if len(rest.Items) != 3 || rest.Items[0].Name != "b" || rest.ResourceVersion == first.ResourceVersion {
		t.Errorf("%d items as of %s, first %+v", len(rest.Items), rest.ResourceVersion, rest.Items)
	}
}
