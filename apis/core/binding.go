package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
)

var bindings = apis.Define(apis.Resource[*corev1.Binding]{
	Plural:   "bindings",
	Verbs:    []string{"create"},
	Validate: func(b, _ *corev1.Binding) field.ErrorList { return ValidateBinding(b) },
})

// ValidateBinding checks a binding, be it for the pod of its name or for the
// one whose subresource is asked.
func ValidateBinding(b *corev1.Binding) field.ErrorList {
	at := check.New().Dot("target")
	if b.Target.Kind != "" {
		check.OneOf(at.Dot("kind"), b.Target.Kind, "Node", "<empty>")
	}
	at.Dot("name").Present(b.Target.Name)
	return at.Errors()
}
