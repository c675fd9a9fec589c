package admit

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var namespaces = schema.GroupResource{Resource: "namespaces"}

// namespaceLifecycle lets nothing come to be where there is no namespace, or
// one that is going, and keeps those that the cluster cannot do without.
func namespaceLifecycle() Plugin {
	return Plugin{Name: "NamespaceLifecycle", Mutate: func(ctx context.Context, w World, r *Request) error {
		if r.Kind.GroupResource() == namespaces {
			if r.Operation == Delete && immortal(r.Name) {
				return apierrors.NewForbidden(namespaces, r.Name, errors.New("this namespace may not be deleted"))
			}
			return nil
		}
		// Whoever may ask what is allowed somewhere is not to learn that way what there is.
		review := r.Kind.Plural == "localsubjectaccessreviews"
		if r.Namespace == "" || review || r.Operation != Create && r.Operation != Update {
			return nil
		}
		obj, err := w.Lookup(ctx, namespaces, "", r.Namespace)
		if err != nil {
			return err
		}
		if ns := obj.(*corev1.Namespace); r.Operation == Update || ns.Status.Phase != corev1.NamespaceTerminating {
			return nil
		}
		refused := forbid(r, "unable to create new content in namespace %s because it is being terminated", r.Namespace)
		refused.ErrStatus.Details.Causes = append(refused.ErrStatus.Details.Causes, metav1.StatusCause{
			Type: corev1.NamespaceTerminatingCause, Message: fmt.Sprintf("namespace %s is being terminated", r.Namespace), Field: "metadata.namespace",
		})
		return refused
	}}
}

func immortal(name string) bool {
	return name == metav1.NamespaceDefault || name == metav1.NamespaceSystem || name == metav1.NamespacePublic
}
