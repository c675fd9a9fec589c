package sub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/rest"
)

// Bindings are the actions that give a pod its node: pods/binding, and the
// kind Binding itself.
func Bindings(svc *rest.Service) []Action {
	bind := Action{
		Resource: corev1.Resource("pods"), Sub: "binding",
		Kind:   corev1.SchemeGroupVersion.WithKind("Binding"),
		New:    func() apis.Object { return new(corev1.Binding) },
		Create: binder{svc}.bind,
	}
	old := bind
	old.Resource, old.Sub = corev1.Resource("bindings"), ""
	return []Action{bind, old}
}

type binder struct{ *rest.Service }

// bind is SR-3 of the contract.
func (b binder) bind(ctx context.Context, c *rest.Call, obj apis.Object) (runtime.Object, error) {
	binding := obj.(*corev1.Binding)
	if c.Name != "" && c.Name != binding.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Binding object")
	}
	if err := checkBinding(binding); err != nil {
		return nil, err
	}
	call := *c
	call.Name, call.Sub = binding.Name, "binding"
	_, err := b.Kind(corev1.Resource("pods")).Rewrite(ctx, &call, func(obj apis.Object) error {
		return b.assign(obj.(*corev1.Pod), binding)
	})
	if err != nil {
		return nil, err
	}
	return done(), nil
}

func checkBinding(b *corev1.Binding) error {
	var errs field.ErrorList
	if b.Target.Kind != "" && b.Target.Kind != "Node" {
		errs = append(errs, field.NotSupported(field.NewPath("target", "kind"), b.Target.Kind, []string{"Node", "<empty>"}))
	}
	if b.Target.Name == "" {
		errs = append(errs, field.Required(field.NewPath("target", "name"), ""))
	}
	if len(errs) == 0 {
		return nil
	}
	return unexplained(errs.ToAggregate().Error())
}

// assign gives the pod to the binding's node.
func (b binder) assign(pod *corev1.Pod, binding *corev1.Binding) error {
	if err := expects(binding, pod); err != nil {
		return err
	}
	var wrong string
	switch {
	case pod.DeletionTimestamp != nil:
		wrong = fmt.Sprintf("pod %s is being deleted, cannot be assigned to a host", pod.Name)
	case pod.Spec.NodeName != "":
		wrong = fmt.Sprintf("pod %v is already assigned to node %q", pod.Name, pod.Spec.NodeName)
	case len(pod.Spec.SchedulingGates) > 0:
		wrong = fmt.Sprintf("pod %v has non-empty .spec.schedulingGates", pod.Name)
	}
	if wrong != "" {
		return apierrors.NewConflict(schema.GroupResource{Resource: "pods/binding"}, pod.Name, errors.New(wrong))
	}
	pod.Spec.NodeName = binding.Target.Name
	pod.Status.NominatedNodeName = ""
	pod.Annotations = merged(pod.Annotations, binding.Annotations)
	pod.Labels = merged(pod.Labels, binding.Labels)
	setCondition(&pod.Status, corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(b.Now()).Rfc3339Copy(),
	})
	return nil
}

// expects checks that the pod is the one, and the revision of it, that the
// binding names.
func expects(binding *corev1.Binding, pod *corev1.Pod) error {
	var wrong string
	switch {
	case binding.UID != "" && binding.UID != pod.UID:
		wrong = fmt.Sprintf("UID in precondition: %v, UID in object meta: %v", binding.UID, pod.UID)
	case binding.ResourceVersion != "" && binding.ResourceVersion != pod.ResourceVersion:
		wrong = fmt.Sprintf("ResourceVersion in precondition: %v, ResourceVersion in object meta: %v", binding.ResourceVersion, pod.ResourceVersion)
	default:
		return nil
	}
	return apierrors.NewConflict(corev1.Resource("pods"), pod.Name, fmt.Errorf(
		"StorageError: invalid object, Code: 4, Key: /registry/pods/%s, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: %s",
		registry.Key(pod.Namespace, pod.Name), wrong))
}

// merged is a map with the entries of another put into it.
func merged(into, from map[string]string) map[string]string {
	if into == nil && len(from) > 0 {
		into = map[string]string{}
	}
	maps.Copy(into, from)
	return into
}

// setCondition puts a condition into a pod's status. It was so since before
// if it was so.
func setCondition(s *corev1.PodStatus, c corev1.PodCondition) {
	for i, old := range s.Conditions {
		if old.Type != c.Type {
			continue
		}
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		s.Conditions[i] = c
		return
	}
	s.Conditions = append(s.Conditions, c)
}

// done is the answer of an action that has nothing more to say.
func done() *metav1.Status {
	return &metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusSuccess, Code: http.StatusCreated,
	}
}

// unexplained is an error as the stock server tells it that has made none of
// its own of it.
func unexplained(text string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: text,
	}}
}
