package cache_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/memory"
)

// What is awaited is not decoded to be selected by: here the one who awaits
// lies of it, to be seen. Whatever is stored instead is decoded.
func TestAwait(t *testing.T) {
	w := start(t, memory.New())
	lie := &corev1.Pod{Spec: corev1.PodSpec{NodeName: "lie"}}
	await := func(name, node string) (forget func()) {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, Labels: map[string]string{"app": "web"}}}
		pod.Spec.NodeName = node
		value, err := podKind.Encode(pod)
		if err != nil {
			t.Fatal(err)
		}
		return w.pods.Await(registry.Key("a", name), value, lie)
	}
	on := func(node string) int {
		t.Helper()
		w.fresh()
		names, _ := w.list(cache.Query{Selection: sel(t, "", "", "spec.nodeName="+node)})
		return len(names)
	}
	await("awaited", "n1")
	w.put("a", "awaited", "n1", "web")
	if on("lie") != 1 {
		t.Error("what was awaited has been decoded")
	}
	w.put("a", "awaited", "n1", "web")
	if on("n1") != 1 {
		t.Error("what was awaited once was not decoded when it came again")
	}
	await("other", "n2")
	w.put("a", "other", "n3", "web")
	if on("n3") != 1 {
		t.Error("other bytes than were awaited were not decoded")
	}
	w.put("a", "other", "n2", "web")
	if on("lie") != 1 {
		t.Error("what was awaited and came second has been decoded")
	}
	await("failed", "n4")()
	w.put("a", "failed", "n4", "web")
	if on("n4") != 1 {
		t.Error("what was forgotten was not decoded")
	}
}
