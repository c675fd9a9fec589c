package job

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// A ruling is what a failure policy says of one failed pod.
type ruling struct {
	action  batchv1.PodFailurePolicyAction // empty where no rule speaks of it
	message string                         // why the job fails
}

// counts reports whether the failure counts against a limit.
func (r ruling) counts() bool { return r.action != batchv1.PodFailurePolicyActionIgnore }

// rule is what the first rule that fits says of p.
func rule(policy *batchv1.PodFailurePolicy, p *corev1.Pod) ruling {
	if policy == nil {
		return ruling{}
	}
	for i, r := range policy.Rules {
		why := ""
		if r.OnExitCodes != nil {
			if c := exited(p, r.OnExitCodes); c != nil {
				why = fmt.Sprintf("Container %s for pod %s/%s failed with exit code %d", c.Name, p.Namespace, p.Name, c.State.Terminated.ExitCode)
			}
		} else if c := conditioned(p, r.OnPodConditions); c != nil {
			why = fmt.Sprintf("Pod %s/%s has condition %s", p.Namespace, p.Name, c.Type)
		}
		if why == "" {
			continue
		}
		out := ruling{action: r.Action}
		if r.Action == batchv1.PodFailurePolicyActionFailJob {
			out.message = fmt.Sprintf("%s matching %s rule at index %d", why, r.Action, i)
		}
		return out
	}
	return ruling{}
}

// exited is the container that ended as the rule says, nil where none did.
func exited(p *corev1.Pod, r *batchv1.PodFailurePolicyOnExitCodesRequirement) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses} {
		for i := range list {
			c := &list[i]
			if c.State.Terminated == nil || c.State.Terminated.ExitCode == 0 || r.ContainerName != nil && *r.ContainerName != c.Name {
				continue
			}
			if slices.Contains(r.Values, c.State.Terminated.ExitCode) == (r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn) {
				return c
			}
		}
	}
	return nil
}

func conditioned(p *corev1.Pod, patterns []batchv1.PodFailurePolicyOnPodConditionsPattern) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		c := &p.Status.Conditions[i]
		for _, want := range patterns {
			if c.Type == want.Type && c.Status == want.Status {
				return c
			}
		}
	}
	return nil
}

// enough is why the indexes that succeeded are enough for the policy, empty
// where they are not.
func enough(policy *batchv1.SuccessPolicy, completions int, succeeded indexes) string {
	if policy == nil || len(succeeded) == 0 {
		return ""
	}
	for i, r := range policy.Rules {
		met := false
		if r.SucceededIndexes != nil {
			want := parse(*r.SucceededIndexes, completions)
			n := want.common(succeeded)
			met = len(want) > 0 && (n == want.len() || r.SucceededCount != nil && n >= int(*r.SucceededCount))
		} else {
			met = r.SucceededCount != nil && succeeded.len() >= int(*r.SucceededCount)
		}
		if met {
			return fmt.Sprintf("Matched rules at index %d", i)
		}
	}
	return ""
}
