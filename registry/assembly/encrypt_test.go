package assembly_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/assembly"
	"github.com/knarr-dev/knarr/registry/memory"
	"github.com/knarr-dev/knarr/registry/registrytest"
)

// secrets are those of a server on store that encrypts by the keys named.
func secrets(t *testing.T, store registry.Store, keys ...string) corev1client.SecretInterface {
	rule := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  - aesgcm:\n      keys:\n"
	for _, k := range keys {
		rule += fmt.Sprintf("      - {name: %s, secret: %s}\n", k, base64.StdEncoding.EncodeToString([]byte(strings.Repeat(k, 32))))
	}
	path := filepath.Join(t.TempDir(), "encryption.yaml")
	if err := os.WriteFile(path, []byte(rule), 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(registrytest.Start(t, registrytest.With(func(c *assembly.Config) {
		c.Store, c.Encrypt.File = store, path
	})))
	if err != nil {
		t.Fatal(err)
	}
	return client.CoreV1().Secrets("default")
}

// A write of what is there already encrypts it anew if that was done with an
// old key, and only then.
func TestServersWhileKeysAreReplaced(t *testing.T) {
	store := memory.New()
	stored := func(key string) {
		t.Helper()
		r, err := store.Get(t.Context(), "/registry/secrets/default/s")
		if err != nil || !strings.HasPrefix(string(r.Value), "k8s:enc:aesgcm:v1:"+key+":") {
			t.Errorf("stored %q, %v; want it by key %s", r.Value, err, key)
		}
	}
	old, next := secrets(t, store, "a", "b"), secrets(t, store, "b", "a")
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Data: map[string][]byte{"k": []byte("v")}}
	made, err := old.Create(t.Context(), s, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	stored("a")
	again, err := next.Update(t.Context(), made, metav1.UpdateOptions{})
	if err != nil || again.ResourceVersion == made.ResourceVersion {
		t.Fatalf("written anew: %v, %v", again, err)
	}
	stored("b")
	same, err := next.Update(t.Context(), again, metav1.UpdateOptions{})
	if err != nil || same.ResourceVersion != again.ResourceVersion {
		t.Fatalf("written for nothing: %v, %v", same, err)
	}
	got, err := old.Get(t.Context(), "s", metav1.GetOptions{})
	if err != nil || string(got.Data["k"]) != "v" {
		t.Errorf("the other server reads %v, %v", got, err)
	}
}
