package pod

import (
	corev1 "k8s.io/api/core/v1"
)

const (
	// Below these the kernel enforces the same: 2 shares, 10 ms in a second.
	minRequestMilli = 2
	minLimitMilli   = 10
)

// resources is what a container really has: what it was given, with the
// runtime's figures where it runs and the runtime tells.
func resources(given corev1.ResourceRequirements, run *Container) *corev1.ResourceRequirements {
	r := given.DeepCopy()
	if run.Phase != Running || run.Resources == nil {
		return r
	}
	actual(r.Limits, run.Resources.Limits, minLimitMilli)
	actual(r.Requests, run.Resources.Requests, minRequestMilli)
	return r
}

// actual takes over the runtime's figures, but not where both lie below what
// the kernel can tell apart.
func actual(list, has corev1.ResourceList, least int64) {
	for name, q := range has {
		if list == nil {
			return
		}
		was := list[name]
		if name == corev1.ResourceCPU && q.MilliValue() <= least && was.MilliValue() <= least {
			continue
		}
		list[name] = q.DeepCopy()
	}
}
