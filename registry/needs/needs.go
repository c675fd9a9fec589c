// Package needs tells which other objects a pod or a volume cannot do
// without, so that the node they are on may read those and no others.
package needs

import (
	corev1 "k8s.io/api/core/v1"
)

// What a pod may need; the words are the plurals of the kinds.
const (
	Secret         = "secrets"
	ConfigMap      = "configmaps"
	Claim          = "persistentvolumeclaims"
	ResourceClaim  = "resourceclaims"
	ServiceAccount = "serviceaccounts"
)

// A Ref names what is needed.
type Ref struct{ Kind, Namespace, Name string }

// OfPod returns what a pod needs in its namespace, some of it perhaps twice.
func OfPod(p *corev1.Pod) []Ref {
	refs := list{namespace: p.Namespace}
	refs.add(ServiceAccount, p.Spec.ServiceAccountName)
	for _, s := range p.Spec.ImagePullSecrets {
		refs.add(Secret, s.Name)
	}
	for i := range p.Spec.InitContainers {
		refs.container(&p.Spec.InitContainers[i])
	}
	for i := range p.Spec.Containers {
		refs.container(&p.Spec.Containers[i])
	}
	for i := range p.Spec.EphemeralContainers {
		c := corev1.Container(p.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		refs.container(&c)
	}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		refs.volume(&v.VolumeSource)
		if v.Ephemeral != nil {
			refs.add(Claim, p.Name+"-"+v.Name)
		}
	}
	refs.devices(p)
	return refs.all
}

type list struct {
	namespace string
	all       []Ref
}

func (l *list) add(kind, name string) {
	if name != "" {
		l.all = append(l.all, Ref{kind, l.namespace, name})
	}
}

func (l *list) local(ref *corev1.LocalObjectReference) {
	if ref != nil {
		l.add(Secret, ref.Name)
	}
}

func (l *list) container(c *corev1.Container) {
	for _, from := range c.EnvFrom {
		if from.SecretRef != nil {
			l.add(Secret, from.SecretRef.Name)
		}
		if from.ConfigMapRef != nil {
			l.add(ConfigMap, from.ConfigMapRef.Name)
		}
	}
	for _, env := range c.Env {
		if env.ValueFrom == nil {
			continue
		}
		if ref := env.ValueFrom.SecretKeyRef; ref != nil {
			l.add(Secret, ref.Name)
		}
		if ref := env.ValueFrom.ConfigMapKeyRef; ref != nil {
			l.add(ConfigMap, ref.Name)
		}
	}
}

func (l *list) volume(v *corev1.VolumeSource) {
	switch {
	case v.Secret != nil:
		l.add(Secret, v.Secret.SecretName)
	case v.ConfigMap != nil:
		l.add(ConfigMap, v.ConfigMap.Name)
	case v.PersistentVolumeClaim != nil:
		l.add(Claim, v.PersistentVolumeClaim.ClaimName)
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			if s.Secret != nil {
				l.add(Secret, s.Secret.Name)
			}
			if s.ConfigMap != nil {
				l.add(ConfigMap, s.ConfigMap.Name)
			}
		}
	case v.CSI != nil:
		l.local(v.CSI.NodePublishSecretRef)
	case v.AzureFile != nil:
		l.add(Secret, v.AzureFile.SecretName)
	case v.CephFS != nil:
		l.local(v.CephFS.SecretRef)
	case v.Cinder != nil:
		l.local(v.Cinder.SecretRef)
	case v.FlexVolume != nil:
		l.local(v.FlexVolume.SecretRef)
	case v.RBD != nil:
		l.local(v.RBD.SecretRef)
	case v.ScaleIO != nil:
		l.local(v.ScaleIO.SecretRef)
	case v.ISCSI != nil:
		l.local(v.ISCSI.SecretRef)
	case v.StorageOS != nil:
		l.local(v.StorageOS.SecretRef)
	}
}

// devices adds the claims of devices, whose names are known from the spec or,
// where they were made for the pod, from the status.
func (l *list) devices(p *corev1.Pod) {
	for _, c := range p.Spec.ResourceClaims {
		if c.ResourceClaimName != nil {
			l.add(ResourceClaim, *c.ResourceClaimName)
			continue
		}
		for _, s := range p.Status.ResourceClaimStatuses {
			if s.Name == c.Name && s.ResourceClaimName != nil {
				l.add(ResourceClaim, *s.ResourceClaimName)
			}
		}
	}
	if s := p.Status.ExtendedResourceClaimStatus; s != nil {
		l.add(ResourceClaim, s.ResourceClaimName)
	}
}

// OfVolume returns the secrets that a node needs to mount a volume.
func OfVolume(pv *corev1.PersistentVolume) (refs []Ref) {
	claimed := ""
	if pv.Spec.ClaimRef != nil {
		claimed = pv.Spec.ClaimRef.Namespace
	}
	add := func(s *corev1.SecretReference) {
		if s == nil || s.Name == "" {
			return
		}
		ns := s.Namespace
		if ns == "" {
			ns = claimed // as it was before secrets of volumes had namespaces
		}
		refs = append(refs, Ref{Secret, ns, s.Name})
	}
	switch v := &pv.Spec.PersistentVolumeSource; {
	case v.CSI != nil:
		add(v.CSI.NodePublishSecretRef)
		add(v.CSI.NodeStageSecretRef)
		add(v.CSI.NodeExpandSecretRef)
	case v.AzureFile != nil:
		s := corev1.SecretReference{Name: v.AzureFile.SecretName}
		if v.AzureFile.SecretNamespace != nil {
			s.Namespace = *v.AzureFile.SecretNamespace
		}
		add(&s)
	case v.CephFS != nil:
		add(v.CephFS.SecretRef)
	case v.Cinder != nil:
		add(v.Cinder.SecretRef)
	case v.FlexVolume != nil:
		add(v.FlexVolume.SecretRef)
	case v.RBD != nil:
		add(v.RBD.SecretRef)
	case v.ScaleIO != nil:
		add(v.ScaleIO.SecretRef)
	case v.ISCSI != nil:
		add(v.ISCSI.SecretRef)
	case v.StorageOS != nil && v.StorageOS.SecretRef != nil:
		add(&corev1.SecretReference{Namespace: v.StorageOS.SecretRef.Namespace, Name: v.StorageOS.SecretRef.Name})
	}
	return refs
}
