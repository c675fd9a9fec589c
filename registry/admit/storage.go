package admit

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
)

var storageClasses = schema.GroupResource{Group: "storage.k8s.io", Resource: "storageclasses"}

// defaultStorageClass gives claims that name no class the default one.
func defaultStorageClass() Plugin {
	return Plugin{Name: "DefaultStorageClass", Mutate: func(ctx context.Context, w World, r *Request) error {
		pvc, _ := r.Object.(*corev1.PersistentVolumeClaim)
		if pvc == nil || r.Sub != "" || r.Operation != Create || classOf(pvc) != nil {
			return nil
		}
		class, err := defaultClass(ctx, w, storageClasses, "storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
		if err != nil {
			return forbidFor(r, err)
		}
		if class != nil {
			pvc.Spec.StorageClassName = new(class.GetName())
		}
		return nil
	}}
}

// classOf is the storage class that a claim names, nil if it names none; an
// empty name is one.
func classOf(pvc *corev1.PersistentVolumeClaim) *string {
	if class, ok := pvc.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return &class
	}
	return pvc.Spec.StorageClassName
}

// defaultIngressClass gives ingresses that name no class the default one.
func defaultIngressClass() Plugin {
	return Plugin{Name: "DefaultIngressClass", Mutate: func(ctx context.Context, w World, r *Request) error {
		ingress, _ := r.Object.(*networkingv1.Ingress)
		if ingress == nil || r.Sub != "" || r.Operation != Create || ingress.Spec.IngressClassName != nil {
			return nil
		}
		if _, named := ingress.Annotations["kubernetes.io/ingress.class"]; named {
			return nil
		}
		gr := schema.GroupResource{Group: "networking.k8s.io", Resource: "ingressclasses"}
		class, err := defaultClass(ctx, w, gr, networkingv1.AnnotationIsDefaultIngressClass)
		if err != nil {
			return forbidFor(r, err)
		}
		if class != nil {
			ingress.Spec.IngressClassName = new(class.GetName())
		}
		return nil
	}}
}

// defaultClass is the class that is marked as default, the newest of several.
func defaultClass(ctx context.Context, w World, gr schema.GroupResource, marks ...string) (newest apis.Object, err error) {
	all, err := w.All(ctx, gr, "")
	for _, class := range all {
		marked := slices.ContainsFunc(marks, func(mark string) bool { return class.GetAnnotations()[mark] == "true" })
		if !marked {
			continue
		}
		if newest != nil {
			a, b := class.GetCreationTimestamp(), newest.GetCreationTimestamp()
			if a.Before(&b) || a.Equal(&b) && class.GetName() > newest.GetName() {
				continue
			}
		}
		newest = class
	}
	return newest, err
}

// protectStorage keeps what is in use from going until it is not.
func protectStorage() Plugin {
	finalizers := map[schema.GroupResource]string{
		{Resource: "persistentvolumes"}:                                "kubernetes.io/pv-protection",
		{Resource: "persistentvolumeclaims"}:                           "kubernetes.io/pvc-protection",
		{Group: "storage.k8s.io", Resource: "volumeattributesclasses"}: "kubernetes.io/vac-protection",
	}
	return Plugin{Name: "StorageObjectInUseProtection", Mutate: func(_ context.Context, _ World, r *Request) error {
		f := finalizers[r.Kind.GroupResource()]
		if f == "" || r.Operation != Create || r.Sub != "" {
			return nil
		}
		if has := r.Object.GetFinalizers(); !slices.Contains(has, f) {
			r.Object.SetFinalizers(append(has, f))
		}
		return nil
	}}
}

// resizeClaims lets claims grow whose class says that they can.
func resizeClaims() Plugin {
	return Plugin{Name: "PersistentVolumeClaimResize", Validate: func(ctx context.Context, w World, r *Request) error {
		pvc, _ := r.Object.(*corev1.PersistentVolumeClaim)
		if pvc == nil || r.Operation != Update || r.Sub != "" {
			return nil
		}
		old := r.Old.(*corev1.PersistentVolumeClaim)
		if size := pvc.Spec.Resources.Requests.Storage(); size.Cmp(*old.Spec.Resources.Requests.Storage()) <= 0 {
			return nil
		}
		if old.Status.Phase != corev1.ClaimBound {
			return forbid(r, "Only bound persistent volume claims can be expanded")
		}
		if !grows(ctx, w, pvc, old) {
			return forbid(r, "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize")
		}
		return nil
	}}
}

func grows(ctx context.Context, w World, pvc, old *corev1.PersistentVolumeClaim) bool {
	name, was := classOf(pvc), classOf(old)
	if name == nil || was == nil || *name == "" || *name != *was {
		return false
	}
	obj, err := w.Lookup(ctx, storageClasses, "", *name)
	if err != nil {
		return false
	}
	allow := obj.(*storagev1.StorageClass).AllowVolumeExpansion
	return allow != nil && *allow
}
