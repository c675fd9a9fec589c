// Package volumes keeps pods to nodes where their volumes can be: not taken by
// another pod, not too many, in the right place, and there at all. Where a
// claim waits for its first pod it chooses the volume, or asks for one.
//
// In-tree volume plugins count as what they are, not as the CSI drivers that
// they have moved to.
package volumes

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/sched"
)

// kinds are what volumes are made of.
var kinds = []apis.Object{
	&corev1.PersistentVolumeClaim{}, &corev1.PersistentVolume{}, &storagev1.StorageClass{},
	&storagev1.CSINode{}, &storagev1.CSIDriver{}, &storagev1.CSIStorageCapacity{}, &storagev1.VolumeAttachment{},
}

// claims tells whether a pod that has no node yet has claims.
func claims(p *sched.Pod) bool {
	return p.Spec.NodeName == "" && slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return claimOf(p.Pod, &v) != "" })
}

// claimOf is the name of the claim behind a volume, empty where it has none.
func claimOf(p *corev1.Pod, v *corev1.Volume) string {
	switch {
	case v.PersistentVolumeClaim != nil:
		return v.PersistentVolumeClaim.ClaimName
	case v.Ephemeral != nil:
		return p.Name + "-" + v.Name
	}
	return ""
}

func notFound(kind, name string) string { return fmt.Sprintf("%s %q not found", kind, name) }

// owned tells whether a claim made for an ephemeral volume is p's, and not
// one that happens to have its name.
func owned(claim *corev1.PersistentVolumeClaim, p *corev1.Pod) bool {
	return metav1.IsControlledBy(claim, p)
}

// classOf is the storage class of a claim or a volume, by annotation in old
// ones.
func classOf(obj metav1.Object, class string) string {
	if old, ok := obj.GetAnnotations()[corev1.BetaStorageClassAnnotation]; ok {
		return old
	}
	return class
}

func claimClass(c *corev1.PersistentVolumeClaim) string {
	if c.Spec.StorageClassName == nil {
		return classOf(c, "")
	}
	return classOf(c, *c.Spec.StorageClassName)
}

// helps leaves out claims and deleted pods that p has nothing to do with.
func helps(p *sched.Pod, e sched.Event) bool {
	uses := func(ns, name string) bool {
		return ns == p.Namespace && slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return claimOf(p.Pod, &v) == name })
	}
	if c, ok := e.Object.(*corev1.PersistentVolumeClaim); ok {
		return uses(c.Namespace, c.Name)
	}
	return e.Pod == nil || len(e.Pod.Spec.Volumes) > 0
}
