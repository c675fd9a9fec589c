package admit

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var priorityClasses = schema.GroupResource{Group: "scheduling.k8s.io", Resource: "priorityclasses"}

// priority gives pods the priority of their class, and lets only one class be
// the one of pods that name none.
func priority() Plugin {
	return Plugin{
		Name: "Priority",
		Mutate: func(ctx context.Context, w World, r *Request) error {
			pod := r.pod()
			switch {
			case pod == nil:
			case r.Operation == Create:
				return setPriority(ctx, w, r, pod)
			case r.Operation == Update:
				// A client that does not know these fields does not mean to clear them.
				old := r.Old.(*corev1.Pod)
				if pod.Spec.Priority == nil {
					pod.Spec.Priority = old.Spec.Priority
				}
				if pod.Spec.PreemptionPolicy == nil {
					pod.Spec.PreemptionPolicy = old.Spec.PreemptionPolicy
				}
			}
			return nil
		},
		Validate: func(ctx context.Context, w World, r *Request) error {
			class, _ := r.Object.(*schedulingv1.PriorityClass)
			if class == nil || !class.GlobalDefault || r.Operation != Create && r.Operation != Update {
				return nil
			}
			other, err := defaultPriority(ctx, w)
			if err != nil || other == nil || r.Operation == Update && other.Name == class.Name {
				return err
			}
			return forbid(r, "PriorityClass %v is already marked as default. Only one default can exist", other.Name)
		},
	}
}

func setPriority(ctx context.Context, w World, r *Request, pod *corev1.Pod) error {
	class, err := priorityClass(ctx, w, r, pod.Spec.PriorityClassName)
	if err != nil {
		return err
	}
	pod.Spec.PriorityClassName = class.Name
	if has := pod.Spec.Priority; has != nil && *has != class.Value {
		return forbid(r, "the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *has, class.Value)
	}
	pod.Spec.Priority = new(class.Value)
	if policy := class.PreemptionPolicy; policy != nil {
		if has := pod.Spec.PreemptionPolicy; has != nil && *has != *policy {
			return forbid(r, "the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *has, *policy)
		}
		pod.Spec.PreemptionPolicy = new(*policy)
	}
	return nil
}

// priorityClass is the class called name; without a name the default one, and
// without that one of no priority.
func priorityClass(ctx context.Context, w World, r *Request, name string) (*schedulingv1.PriorityClass, error) {
	if name == "" {
		class, err := defaultPriority(ctx, w)
		if class == nil && err == nil {
			class = &schedulingv1.PriorityClass{PreemptionPolicy: new(corev1.PreemptLowerPriority)}
		}
		return class, err
	}
	obj, err := w.Lookup(ctx, priorityClasses, "", name)
	if apierrors.IsNotFound(err) {
		return nil, forbid(r, "no PriorityClass with name %v was found", name)
	}
	if err != nil {
		return nil, err
	}
	return obj.(*schedulingv1.PriorityClass), nil
}

// defaultPriority is the class of pods that name none, the least of them if
// there are several, nil if there is none.
func defaultPriority(ctx context.Context, w World) (found *schedulingv1.PriorityClass, err error) {
	all, err := w.All(ctx, priorityClasses, "")
	for _, obj := range all {
		class := obj.(*schedulingv1.PriorityClass)
		if class.GlobalDefault && (found == nil || found.Value > class.Value) {
			found = class
		}
	}
	return found, err
}
