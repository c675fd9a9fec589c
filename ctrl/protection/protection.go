// Package protection lets claims, volumes and classes of volume attributes go
// when nothing uses them any more: until then a finalizer holds them.
package protection

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/ctrl"
)

// The finalizers, which the API server sets as well.
const (
	claimFinalizer  = "kubernetes.io/pvc-protection"
	volumeFinalizer = "kubernetes.io/pv-protection"
	classFinalizer  = "kubernetes.io/vac-protection"
)

// Claims holds a claim while a pod that is on a node and has not ended uses it.
var Claims = ctrl.Controller[*corev1.PersistentVolumeClaim, use]{
	Name:    "persistentvolumeclaim-protection-controller",
	Account: "pvc-protection-controller",
	Reads:   []ctrl.Read{ctrl.Watch(wakeForPod, podsByClaim)},
	Writes:  []ctrl.Write{ctrl.May(&corev1.PersistentVolumeClaim{}, ctrl.Update)},
	Gather: func(w ctrl.World, c *corev1.PersistentVolumeClaim) use {
		pods := ctrl.Find[*corev1.Pod](w, podsByClaim, c.Namespace+"/"+c.Name)
		return use{c, claimFinalizer, slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return !ended(p) })}
	},
	Decide: decide,
}.Erase()

// Volumes holds a volume while it is bound to a claim.
var Volumes = ctrl.Controller[*corev1.PersistentVolume, use]{
	Name:    "persistentvolume-protection-controller",
	Account: "pv-protection-controller",
	Writes:  []ctrl.Write{ctrl.May(&corev1.PersistentVolume{}, ctrl.Update)},
	Gather: func(_ ctrl.World, v *corev1.PersistentVolume) use {
		return use{v, volumeFinalizer, v.Status.Phase == corev1.VolumeBound}
	},
	Decide: decide,
}.Erase()

// Classes holds a class of volume attributes while a claim or a volume names it.
var Classes = ctrl.Controller[*storagev1.VolumeAttributesClass, use]{
	Name:   "volumeattributesclass-protection-controller",
	Reads:  []ctrl.Read{ctrl.Watch(wakeForClaim, claimsByClass), ctrl.Watch(wakeForVolume, volumesByClass)},
	Writes: []ctrl.Write{ctrl.May(&storagev1.VolumeAttributesClass{}, ctrl.Update)},
	Gather: func(w ctrl.World, c *storagev1.VolumeAttributesClass) use {
		used := len(ctrl.Find[*corev1.PersistentVolumeClaim](w, claimsByClass, c.Name))+len(ctrl.Find[*corev1.PersistentVolume](w, volumesByClass, c.Name)) > 0
		return use{c, classFinalizer, used}
	},
	Decide: decide,
}.Erase()

// use is an object, the finalizer that holds it, and whether it is in use.
type use struct {
	obj       apis.Object
	finalizer string
	used      bool
}

func decide(u use) ctrl.Plan {
	list := u.obj.GetFinalizers()
	held := slices.Contains(list, u.finalizer)
	switch goes := u.obj.GetDeletionTimestamp() != nil; {
	case goes && held && !u.used:
		list = slices.DeleteFunc(slices.Clone(list), func(f string) bool { return f == u.finalizer })
	case !goes && !held:
		list = append(slices.Clone(list), u.finalizer)
	default:
		return ctrl.Plan{}
	}
	obj := u.obj.DeepCopyObject().(apis.Object)
	obj.SetFinalizers(list)
	return ctrl.Plan{Do: []ctrl.Action{{Verb: ctrl.Update, Obj: obj}}}
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// podsByClaim is by the claims that pods on nodes use. One that is on none
// yet does not count, for a node refuses it a claim that is going.
var podsByClaim = &ctrl.Index{Name: "pods on nodes by claim", Of: func(o apis.Object) (keys []string) {
	if p, is := o.(*corev1.Pod); is && p.Spec.NodeName != "" {
		for _, k := range claims(p) {
			keys = append(keys, k.String())
		}
	}
	return keys
}}

// claims are those that a pod names, and those made for its ephemeral volumes.
func claims(p *corev1.Pod) (keys []ctrl.Key) {
	for i := range p.Spec.Volumes {
		switch v := &p.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			keys = append(keys, ctrl.Key{Namespace: p.Namespace, Name: v.PersistentVolumeClaim.ClaimName})
		case v.Ephemeral != nil:
			keys = append(keys, ctrl.Key{Namespace: p.Namespace, Name: p.Name + "-" + v.Name})
		}
	}
	return keys
}

// wakeForPod wakes the claims of a pod that has ended or gone.
func wakeForPod(_ ctrl.World, old, p *corev1.Pod) []ctrl.Key {
	if p == nil {
		return claims(old)
	}
	if ended(p) {
		return claims(p)
	}
	return nil
}

var claimsByClass = &ctrl.Index{Name: "claims by class of attributes", Of: func(o apis.Object) []string {
	c, is := o.(*corev1.PersistentVolumeClaim)
	if !is {
		return nil
	}
	return classes(c.Spec.VolumeAttributesClassName, c.Status.CurrentVolumeAttributesClassName, target(c))
}}

// target is the class that a claim is being changed to.
func target(c *corev1.PersistentVolumeClaim) *string {
	if s := c.Status.ModifyVolumeStatus; s != nil {
		return &s.TargetVolumeAttributesClassName
	}
	return nil
}

var volumesByClass = &ctrl.Index{Name: "volumes by class of attributes", Of: func(o apis.Object) []string {
	v, is := o.(*corev1.PersistentVolume)
	if !is {
		return nil
	}
	return classes(v.Spec.VolumeAttributesClassName)
}}

func classes(names ...*string) (out []string) {
	for _, n := range names {
		if n != nil && *n != "" && !slices.Contains(out, *n) {
			out = append(out, *n)
		}
	}
	return out
}

// wakeForClaim wakes the classes that a claim has ceased to name.
func wakeForClaim(_ ctrl.World, old, c *corev1.PersistentVolumeClaim) []ctrl.Key {
	if old == nil {
		return nil
	}
	var now []string
	if c != nil {
		now = claimsByClass.Of(c)
	}
	return dropped(claimsByClass.Of(old), now)
}

func wakeForVolume(_ ctrl.World, old, v *corev1.PersistentVolume) []ctrl.Key {
	if old == nil {
		return nil
	}
	var now []string
	if v != nil {
		now = volumesByClass.Of(v)
	}
	return dropped(volumesByClass.Of(old), now)
}

func dropped(before, now []string) (keys []ctrl.Key) {
	for _, n := range before {
		if !slices.Contains(now, n) {
			keys = append(keys, ctrl.Key{Name: n})
		}
	}
	return keys
}
