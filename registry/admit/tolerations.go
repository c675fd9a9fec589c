package admit

import (
	"context"

	corev1 "k8s.io/api/core/v1"
)

// patience is for how many seconds a pod stays on a node that has failed, if
// it does not say.
const patience = 300

// tolerations lets pods stay a while on a node that may come back.
func tolerations() Plugin {
	return Plugin{Name: "DefaultTolerationSeconds", Mutate: func(_ context.Context, _ World, r *Request) error {
		pod := r.pod()
		if pod == nil || r.Operation != Create && r.Operation != Update {
			return nil
		}
		given := pod.Spec.Tolerations
		for _, taint := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
			if !tolerates(given, taint) {
				pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
					Key: taint, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(patience)),
				})
			}
		}
		return nil
	}}
}

func tolerates(given []corev1.Toleration, taint string) bool {
	for _, t := range given {
		if (t.Key == taint || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "") {
			return true
		}
	}
	return false
}
