package pod

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestHash holds the number to what upstream's kubelet writes.
func TestHash(t *testing.T) {
	if got := Hash(&corev1.Container{Name: "foo", Image: "bar"}); got != "11a6d6d6" {
		t.Error(got)
	}
}
