package addons

import (
	"context"
	"encoding/json"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// manager is who owns what is applied.
const manager = "knarr"

// Apply makes the cluster have some objects as they are given. What others
// have added to them stays, and so does a number of replicas that they set.
// It may be called again at any time.
func Apply(ctx context.Context, client kubernetes.Interface, objects []runtime.Object) error {
	for _, obj := range objects {
		meta, ok := obj.(metav1.Object)
		if !ok {
			return fmt.Errorf("apply %T: it has no name", obj)
		}
		if err := applyOne(ctx, client, obj, meta.GetNamespace(), meta.GetName()); err != nil {
			return fmt.Errorf("apply %s %s: %w", obj.GetObjectKind().GroupVersionKind().Kind, meta.GetName(), err)
		}
	}
	return nil
}

func applyOne(ctx context.Context, client kubernetes.Interface, obj runtime.Object, namespace, name string) error {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return err
	}
	// Whoever says nothing of these is to own nothing of them.
	unstructured.RemoveNestedField(fields, "status")
	unstructured.RemoveNestedField(fields, "metadata", "creationTimestamp")
	unstructured.RemoveNestedField(fields, "spec", "template", "metadata", "creationTimestamp")
	if _, deployment := obj.(*appsv1.Deployment); deployment {
		have, err := client.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		if err == nil && scaled(have) {
			unstructured.RemoveNestedField(fields, "spec", "replicas")
		}
	}
	data, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	return patch(ctx, client, obj, data)
}

// patch sends what is to be applied to where the kind is.
func patch(ctx context.Context, client kubernetes.Interface, obj runtime.Object, data []byte) (err error) {
	opts := metav1.PatchOptions{FieldManager: manager, Force: new(true)}
	switch o := obj.(type) {
	case *corev1.ServiceAccount:
		_, err = client.CoreV1().ServiceAccounts(o.Namespace).Patch(ctx, o.Name, types.ApplyPatchType, data, opts)
	case *corev1.Service:
		_, err = client.CoreV1().Services(o.Namespace).Patch(ctx, o.Name, types.ApplyPatchType, data, opts)
	case *appsv1.Deployment:
		_, err = client.AppsV1().Deployments(o.Namespace).Patch(ctx, o.Name, types.ApplyPatchType, data, opts)
	case *rbacv1.ClusterRole:
		_, err = client.RbacV1().ClusterRoles().Patch(ctx, o.Name, types.ApplyPatchType, data, opts)
	case *rbacv1.ClusterRoleBinding:
		_, err = client.RbacV1().ClusterRoleBindings().Patch(ctx, o.Name, types.ApplyPatchType, data, opts)
	default:
		err = fmt.Errorf("%T is of no kind that addons are made of", obj)
	}
	return err
}

// scaled tells whether somebody else set the number of replicas.
func scaled(d *appsv1.Deployment) bool {
	for _, m := range d.ManagedFields {
		var owned struct {
			Spec map[string]json.RawMessage `json:"f:spec"`
		}
		if m.Manager == manager && m.Operation == metav1.ManagedFieldsOperationApply || m.FieldsV1 == nil {
			continue
		}
		if err := json.Unmarshal(m.FieldsV1.GetRawBytes(), &owned); err != nil {
			continue // it is the server's own text, and no reason to change what others set
		}
		if _, ok := owned.Spec["f:replicas"]; ok {
			return true
		}
	}
	return false
}
