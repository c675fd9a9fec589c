package podspec

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

// Overhead checks what pods of a runtime class cost beside their containers.
func Overhead(at check.At, cost corev1.ResourceList) {
	c := context{Subject: Subject{Spec: &corev1.PodSpec{}}}
	c.resources(at, &corev1.ResourceRequirements{Limits: cost}, meta.ContainerResource)
}

// Tolerations checks tolerations that pods of a runtime class have.
func Tolerations(at check.At, all []corev1.Toleration) { tolerations(at, all) }
