package admit

import (
	"context"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// runtimeClass gives pods what the class of their runtime costs and asks for.
func runtimeClass() Plugin {
	return Plugin{
		Name: "RuntimeClass",
		Mutate: func(ctx context.Context, w World, r *Request) error {
			class, err := runtimeOf(ctx, w, r)
			if err != nil || class == nil {
				return err
			}
			pod := r.pod()
			if class.Overhead != nil {
				if len(pod.Spec.Overhead) > 0 && !apiequality.Semantic.DeepEqual(class.Overhead.PodFixed, pod.Spec.Overhead) {
					return forbid(r, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
				}
				pod.Spec.Overhead = class.Overhead.PodFixed.DeepCopy()
			}
			return setScheduling(r, pod, class.Scheduling)
		},
		Validate: func(ctx context.Context, w World, r *Request) error {
			class, err := runtimeOf(ctx, w, r)
			pod := r.pod()
			switch {
			case err != nil || pod == nil || r.Operation != Create:
				return err
			case class == nil || class.Overhead == nil:
				if pod.Spec.Overhead != nil {
					return forbid(r, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
				}
			case !apiequality.Semantic.DeepEqual(class.Overhead.PodFixed, pod.Spec.Overhead):
				return forbid(r, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
			}
			return nil
		},
	}
}

// runtimeOf is the class of a new pod's runtime, nil where it names none.
func runtimeOf(ctx context.Context, w World, r *Request) (*nodev1.RuntimeClass, error) {
	pod := r.pod()
	if pod == nil || r.Operation != Create || pod.Spec.RuntimeClassName == nil {
		return nil, nil
	}
	name := *pod.Spec.RuntimeClassName
	obj, err := w.Lookup(ctx, schema.GroupResource{Group: "node.k8s.io", Resource: "runtimeclasses"}, "", name)
	if apierrors.IsNotFound(err) {
		return nil, forbid(r, "pod rejected: RuntimeClass %q not found", name)
	}
	if err != nil {
		return nil, err
	}
	return obj.(*nodev1.RuntimeClass), nil
}

func setScheduling(r *Request, pod *corev1.Pod, s *nodev1.Scheduling) error {
	if s == nil {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(s.NodeSelector)) {
		value := s.NodeSelector[key]
		if has, ok := pod.Spec.NodeSelector[key]; ok && has != value {
			return forbid(r, "conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s", key, value, key, has)
		}
		if pod.Spec.NodeSelector == nil {
			pod.Spec.NodeSelector = map[string]string{}
		}
		pod.Spec.NodeSelector[key] = value
	}
	pod.Spec.Tolerations = united(slices.Concat(pod.Spec.Tolerations, s.Tolerations))
	return nil
}

// united are tolerations without those that another one has in it; of equal
// ones the first stays.
func united(all []corev1.Toleration) (kept []corev1.Toleration) {
	for i, t := range all {
		covered := slices.ContainsFunc(kept, func(k corev1.Toleration) bool { return covers(k, t) }) ||
			slices.ContainsFunc(all[i+1:], func(later corev1.Toleration) bool {
				return !apiequality.Semantic.DeepEqual(t, later) && covers(later, t)
			})
		if !covered {
			kept = append(kept, t)
		}
	}
	return kept
}

// covers reports whether a tolerates all that b does.
func covers(a, b corev1.Toleration) bool {
	if apiequality.Semantic.DeepEqual(a, b) {
		return true
	}
	anyKey := a.Key == "" && a.Operator == corev1.TolerationOpExists
	if b.Key != a.Key && !anyKey || b.Effect != a.Effect && a.Effect != "" {
		return false
	}
	if s := a.TolerationSeconds; a.Effect == corev1.TaintEffectNoExecute && s != nil && (b.TolerationSeconds == nil || *b.TolerationSeconds > *s) {
		return false
	}
	switch a.Operator {
	case corev1.TolerationOpEqual, "":
		return b.Operator == corev1.TolerationOpEqual && b.Value == a.Value
	case corev1.TolerationOpExists:
		return true
	}
	return false
}
