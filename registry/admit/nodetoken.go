package admit

import (
	"context"
	"errors"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/registry"
)

// tokenRule lets a node ask for tokens for the pods on it, and only for
// audiences that those pods want.
type tokenRule struct{ Config }

func (t tokenRule) check(ctx context.Context, w World, r *Request, node string) error {
	if r.Operation != Create || r.Sub != "token" {
		return nil
	}
	req := r.Object.(*authenticationv1.TokenRequest)
	ref := req.Spec.BoundObjectRef
	if ref == nil || ref.APIVersion != "v1" || ref.Kind != "Pod" || ref.Name == "" {
		return forbid(r, "node requested token not bound to a pod")
	}
	if ref.UID == "" {
		return forbid(r, "node requested token with a pod binding without a uid")
	}
	obj, err := w.Lookup(ctx, schema.GroupResource{Resource: "pods"}, r.Namespace, ref.Name)
	if err != nil {
		return err
	}
	pod := obj.(*corev1.Pod)
	if ref.UID != pod.UID {
		return forbid(r, "the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID)
	}
	if pod.Spec.NodeName != node {
		return forbid(r, "node requested token bound to a pod scheduled on a different node")
	}
	return t.audience(ctx, w, r, pod, req.Spec.Audiences)
}

// audience refuses an audience that neither the pod wants nor the node may ask for.
func (t tokenRule) audience(ctx context.Context, w World, r *Request, pod *corev1.Pod, asked []string) error {
	wanted := ""
	switch len(asked) {
	case 0:
	case 1:
		wanted = asked[0]
	default:
		return forbid(r, "node may only request 0 or 1 audiences")
	}
	found, err := volumesWant(ctx, w, pod, wanted)
	if found {
		return nil
	}
	if err != nil {
		return forbid(r, "error validating audience %q: %w", wanted, err)
	}
	may := t.May(ctx, &registry.Request{
		User: r.User, Verb: "request-serviceaccounts-token-audience", Resource: true, Version: "v1",
		Namespace: r.Namespace, Plural: wanted, Name: r.Name,
	})
	if may {
		return nil
	}
	return forbid(r, "audience %q not found in pod spec volume, %s is not authorized to request tokens for this audience", wanted, r.User.Name)
}

// volumesWant reports whether a volume of the pod wants a token for an audience.
func volumesWant(ctx context.Context, w World, pod *corev1.Pod, audience string) (bool, error) {
	var errs []error
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Projected != nil {
			for _, s := range v.Projected.Sources {
				if s.ServiceAccountToken != nil && s.ServiceAccountToken.Audience == audience {
					return true, nil
				}
			}
		}
		driver, err := driverOf(ctx, w, pod, v)
		if err == nil && driver != "" {
			var wants bool
			if wants, err = driverWants(ctx, w, driver, audience); wants {
				return true, nil
			}
		}
		errs = append(errs, err)
	}
	return false, errors.Join(errs...)
}

// driverOf is the CSI driver of a volume, "" for none.
func driverOf(ctx context.Context, w World, pod *corev1.Pod, v *corev1.Volume) (string, error) {
	claim := ""
	switch {
	case v.CSI != nil:
		return v.CSI.Driver, nil
	case v.Ephemeral != nil:
		claim = pod.Name + "-" + v.Name
	case v.PersistentVolumeClaim != nil:
		claim = v.PersistentVolumeClaim.ClaimName
	default:
		return "", nil
	}
	pvc, err := w.Lookup(ctx, schema.GroupResource{Resource: "persistentvolumeclaims"}, pod.Namespace, claim)
	if err != nil {
		return "", err
	}
	pv, err := w.Lookup(ctx, schema.GroupResource{Resource: "persistentvolumes"}, "", pvc.(*corev1.PersistentVolumeClaim).Spec.VolumeName)
	if err != nil {
		return "", err
	}
	if csi := pv.(*corev1.PersistentVolume).Spec.CSI; csi != nil {
		return csi.Driver, nil
	}
	return "", nil
}

func driverWants(ctx context.Context, w World, driver, audience string) (bool, error) {
	obj, err := w.Lookup(ctx, schema.GroupResource{Group: "storage.k8s.io", Resource: "csidrivers"}, "", driver)
	if err != nil {
		return false, fmt.Errorf("driver %s: %w", driver, err)
	}
	for _, t := range obj.(*storagev1.CSIDriver).Spec.TokenRequests {
		if t.Audience == audience {
			return true, nil
		}
	}
	return false, nil
}
