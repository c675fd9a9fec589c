package sub

import (
	"testing"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestNegative is of a budget that could be stored before such were refused.
func TestNegative(t *testing.T) {
	b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "b"}}
	b.Status.DisruptionsAllowed = -1
	const want = `poddisruptionbudget.policy "b" is forbidden: pdb disruptions allowed is negative`
	if err := allows(b); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
