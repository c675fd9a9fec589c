package registrytest_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/knarr-dev/knarr/registry/registrytest"
)

// TestStart reaches a server in each of the ways that there are.
func TestStart(t *testing.T) {
	for name, opts := range map[string][]registrytest.Option{
		"memory": nil, "tls": {registrytest.TLS}, "etcd": {registrytest.Etcd},
	} {
		t.Run(name, func(t *testing.T) {
			client := kubernetes.NewForConfigOrDie(registrytest.Start(t, opts...))
			made := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Data: map[string]string{"k": "v"}}
			if _, err := client.CoreV1().ConfigMaps("default").Create(t.Context(), made, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			got, err := client.CoreV1().ConfigMaps("default").Get(t.Context(), "a", metav1.GetOptions{})
			if err != nil || got.Data["k"] != "v" {
				t.Errorf("got %v: %v", got, err)
			}
		})
	}
}
