// Package podspec says what the spec of a pod may be, wherever one stands: in
// a pod, or in the template of whatever makes pods. It sets what is left out,
// finds what is wrong and what will surprise. What may change in a pod that
// runs is in package core.
package podspec

import (
	"iter"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis/check"
)

// Containers goes through all containers of a spec: those that initialize,
// the main ones, and those for debugging, which lack but what a Container has
// beyond its EphemeralContainerCommon.
func Containers(at check.At, spec *corev1.PodSpec) iter.Seq2[check.At, *corev1.Container] {
	return func(yield func(check.At, *corev1.Container) bool) {
		for i := range spec.InitContainers {
			if !yield(at.Dot("initContainers").Index(i), &spec.InitContainers[i]) {
				return
			}
		}
		for i := range spec.Containers {
			if !yield(at.Dot("containers").Index(i), &spec.Containers[i]) {
				return
			}
		}
		for i := range spec.EphemeralContainers {
			c := (*corev1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon)
			if !yield(at.Dot("ephemeralContainers").Index(i), c) {
				return
			}
		}
	}
}

// Sidecar reports whether an init container runs as long as the main ones do.
func Sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}
