package core

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

var namespaces = apis.Define(apis.Resource[*corev1.Namespace]{
	Plural: "namespaces",
	Short:  []string{"ns"},
	Scope:  apis.Cluster,
	Verbs:  []string{"create", "delete", "get", "list", "patch", "update", "watch"},

	Default:  defaultNamespace,
	Prepare:  prepareNamespace,
	Validate: validateNamespace,
	Name:     validation.ValidateNamespaceName,
	Subs: []apis.Sub[*corev1.Namespace]{
		{
			Name: "finalize", Verbs: []string{"update"}, Keeps: []string{"status"},
			Prepare: func(_, _ *corev1.Namespace) {}, Validate: validateFinalize,
		},
		meta.Status(validateNamespaceStatus),
	},

	Fields: map[string]func(*corev1.Namespace) string{
		"status.phase": func(n *corev1.Namespace) string { return string(n.Status.Phase) },
	},
	Columns: []apis.Column[*corev1.Namespace]{
		{Name: "Status", Cell: func(n *corev1.Namespace, _ time.Time) any { return string(n.Status.Phase) }},
	},
	Lifetime: apis.Lifetime[*corev1.Namespace]{
		ReturnsDeleted: true,

		Held: func(n *corev1.Namespace) bool { return len(n.Spec.Finalizers) > 0 },
		Leave: func(n *corev1.Namespace) {
			n.Status.Phase = corev1.NamespaceTerminating
			n.DeletionGracePeriodSeconds = nil // as upstream: it is no matter of time
		},
	},
})

// defaultNamespace labels a namespace with its name, for selectors to find it by.
func defaultNamespace(n *corev1.Namespace) {
	if n.Name != "" {
		if n.Labels == nil {
			n.Labels = map[string]string{}
		}
		n.Labels[corev1.LabelMetadataName] = n.Name
	}
	if n.Status.Phase == "" {
		n.Status.Phase = corev1.NamespaceActive
	}
}

func prepareNamespace(n, old *corev1.Namespace) {
	defaultNamespace(n) // the name may have been made since
	if old != nil {
		n.Spec.Finalizers, n.Status = old.Spec.Finalizers, old.Status
		return
	}
	n.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
	if !slices.Contains(n.Spec.Finalizers, corev1.FinalizerKubernetes) {
		n.Spec.Finalizers = append(n.Spec.Finalizers, corev1.FinalizerKubernetes)
	}
}

func validateNamespace(n, _ *corev1.Namespace) field.ErrorList {
	at := check.New()
	for _, f := range n.Spec.Finalizers {
		meta.AnyFinalizer(at.Dot("spec.finalizers"), string(f)) // as upstream: which one is not told
	}
	return at.Errors()
}

func validateFinalize(n, _ *corev1.Namespace) field.ErrorList {
	at := check.New()
	for i, f := range n.Spec.Finalizers {
		meta.AnyFinalizer(at.Dot("spec.finalizers").Index(i), string(f))
	}
	return at.Errors()
}

func validateNamespaceStatus(n, _ *corev1.Namespace) field.ErrorList {
	at := check.New()
	phase := at.Dot("status.Phase") // as upstream spells it
	switch going := !n.DeletionTimestamp.IsZero(); {
	case going && n.Status.Phase != corev1.NamespaceTerminating:
		phase.Invalid(n.Status.Phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")
	case !going && n.Status.Phase != corev1.NamespaceActive:
		phase.Invalid(n.Status.Phase, "may only be 'Active' if `deletionTimestamp` is empty")
	}
	return at.Errors()
}
