package core

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var namespaces = apis.Define(apis.Resource[*corev1.Namespace]{
	Plural: "namespaces",
	Short:  []string{"ns"},
	Scope:  apis.Cluster,
	Verbs:  []string{"create", "delete", "get", "list", "patch", "update", "watch"},

	Default: defaultNamespace,
	Prepare: prepareNamespace,
	Subs: []apis.Sub[*corev1.Namespace]{
		{Name: "finalize", Verbs: []string{"update"}, Keeps: []string{"status"}, Prepare: func(_, _ *corev1.Namespace) {}},
		meta.Status[*corev1.Namespace](nil),
	},

	Fields: map[string]func(*corev1.Namespace) string{
		"status.phase": func(n *corev1.Namespace) string { return string(n.Status.Phase) },
	},
	Columns: []apis.Column[*corev1.Namespace]{
		{Name: "Status", Cell: func(n *corev1.Namespace, _ time.Time) any { return string(n.Status.Phase) }},
	},
	Lifetime: apis.Lifetime[*corev1.Namespace]{
		ReturnsDeleted: true,

		Held:  func(n *corev1.Namespace) bool { return len(n.Spec.Finalizers) > 0 },
		Leave: func(n *corev1.Namespace) { n.Status.Phase = corev1.NamespaceTerminating },
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
	if old != nil {
		n.Spec.Finalizers, n.Status = old.Spec.Finalizers, old.Status
		return
	}
	n.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
	if !slices.Contains(n.Spec.Finalizers, corev1.FinalizerKubernetes) {
		n.Spec.Finalizers = append(n.Spec.Finalizers, corev1.FinalizerKubernetes)
	}
}
