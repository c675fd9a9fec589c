package podspec

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis/check"
)

// Drop removes from a spec the fields of features that are off by default,
// where it did not have them before.
func Drop(spec, was *corev1.PodSpec) {
	if was == nil {
		was = &corev1.PodSpec{}
	}
	if was.SchedulingGroup == nil {
		spec.SchedulingGroup = nil
	}
	if !anyStopSignal(was) {
		for _, c := range Containers(check.At{}, spec) {
			if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
				c.Lifecycle.StopSignal = nil
				if *c.Lifecycle == (corev1.Lifecycle{}) {
					c.Lifecycle = nil
				}
			}
		}
	}
	bundle, certificate := anyProjection(was)
	for _, v := range spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for i := range v.Projected.Sources {
			s := &v.Projected.Sources[i]
			if !bundle {
				s.ClusterTrustBundle = nil
			}
			if !certificate {
				s.PodCertificate = nil
			}
		}
	}
}

// DropTemplate is Drop for a template; was is nil where it was none.
func DropTemplate(t, was *corev1.PodTemplateSpec) {
	if was == nil {
		was = &corev1.PodTemplateSpec{}
	}
	Drop(&t.Spec, &was.Spec)
}

func anyStopSignal(spec *corev1.PodSpec) bool {
	for _, c := range Containers(check.At{}, spec) {
		if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
			return true
		}
	}
	return false
}

func anyProjection(spec *corev1.PodSpec) (bundle, certificate bool) {
	for _, v := range spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			bundle = bundle || s.ClusterTrustBundle != nil
			certificate = certificate || s.PodCertificate != nil
		}
	}
	return bundle, certificate
}
