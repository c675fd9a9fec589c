package core

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/podspec"
)

// editResize carries over how much the pod and its containers may use. Where
// the containers are not those of into everything is carried over, for
// validateResize to say so.
func editResize(into, p *corev1.Pod) {
	if !sameNames(into.Spec.Containers, p.Spec.Containers) || !sameNames(into.Spec.InitContainers, p.Spec.InitContainers) {
		*into = *p
		return
	}
	into.Spec.Resources = p.Spec.Resources
	resize := func(into, from []corev1.Container) {
		for i := range into {
			into[i].Resources, into[i].ResizePolicy = from[i].Resources, from[i].ResizePolicy
		}
	}
	resize(into.Spec.Containers, p.Spec.Containers)
	resize(into.Spec.InitContainers, p.Spec.InitContainers)
}

func sameNames(a, b []corev1.Container) bool {
	for i := range a {
		if len(a) != len(b) || a[i].Name != b[i].Name {
			return false
		}
	}
	return len(a) == len(b)
}

// refusal is all that is said where a pod cannot be resized at all.
func refusal(detail string) field.ErrorList {
	at := check.New()
	check.Root(at).Forbidden(detail)
	return at.Errors()
}

func validateResize(p, old *corev1.Pod) field.ErrorList {
	at := check.New()
	podRules(at, p, old)
	if _, mirror := old.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return refusal("static pods cannot be resized")
	}
	if old.Spec.OS != nil && old.Spec.OS.Name == corev1.Windows {
		return refusal("windows pods cannot be resized")
	}
	spec := at.Dot("spec")
	was := old.Status.QOSClass
	if was == "" {
		was = podspec.QOS(&old.Spec)
	}
	if was != podspec.QOS(&p.Spec) {
		spec.Invalid(p.Status.QOSClass, "Pod QOS Class may not change as a result of resizing")
	}
	if !resizable(old) {
		spec.Forbidden("Pod running on node without support for resize")
	}
	rest := p.Spec.DeepCopy()
	if hasResources(&old.Spec) || hasResources(&p.Spec) {
		resizePod(spec, p, old, rest)
	}
	if len(old.Status.NodeAllocatableResourceClaimStatuses) > 0 {
		spec.Forbidden("pods with node allocatable resource claims cannot be resized")
	}
	if !ordered(spec, p, old) {
		return at.Errors()
	}
	resizeContainers(spec, rest, &p.Spec, &old.Spec)
	if at.Found() == 0 && !equality.Semantic.DeepEqual(*rest, old.Spec) {
		spec.Forbidden("only cpu and memory resources are mutable")
	}
	return at.Errors()
}

// resizable reports whether the node of a pod that runs has told what its
// containers may use, as nodes do that can resize.
func resizable(p *corev1.Pod) bool {
	for _, c := range p.Status.ContainerStatuses {
		if c.State.Running != nil {
			return c.Resources != nil
		}
	}
	return true
}

func hasResources(s *corev1.PodSpec) bool {
	return s.Resources != nil && len(s.Resources.Requests)+len(s.Resources.Limits) > 0
}

// ordered demands the containers that there were, in their order.
func ordered(at check.At, p, old *corev1.Pod) bool {
	before := at.Found()
	one := func(at check.At, what string, now, was []corev1.Container) {
		if len(now) != len(was) {
			at.Forbidden(what + " may not be added or removed on resize")
			return
		}
		for i := range was {
			if now[i].Name != was[i].Name {
				at.Index(i).Dot("name").Forbidden(what + " may not be renamed or reordered on resize")
			}
		}
	}
	one(at.Dot("containers"), "containers", p.Spec.Containers, old.Spec.Containers)
	one(at.Dot("initContainers"), "initContainers", p.Spec.InitContainers, old.Spec.InitContainers)
	return at.Found() == before
}

// resizePod judges the resources of the pod as a whole, and puts CPU and
// memory back into rest.
func resizePod(at check.At, p, old *corev1.Pod, rest *corev1.PodSpec) {
	now, was := p.Spec.Resources, old.Spec.Resources
	if was != nil && now == nil {
		at.Dot("resources").Forbidden("pod-level resources cannot be removed")
		return
	}
	if was == nil {
		was = &corev1.ResourceRequirements{}
	} else {
		if removed(now.Requests, was.Requests) {
			at.Dot("resources.requests").Forbidden("pod-level resource requests cannot be removed")
		}
		if removed(now.Limits, was.Limits) {
			at.Dot("resources.limits").Forbidden("pod-level resource limits cannot be removed")
		}
	}
	rest.Resources.Requests = putBack(rest.Resources.Requests, was.Requests)
	rest.Resources.Limits = putBack(rest.Resources.Limits, was.Limits)
	if old.Spec.Resources == nil && len(rest.Resources.Requests)+len(rest.Resources.Limits)+len(rest.Resources.Claims) == 0 {
		rest.Resources = nil
	}
	if !equality.Semantic.DeepEqual(rest.Resources, old.Spec.Resources) {
		at.Forbidden("only cpu and memory resources are mutable at pod-level")
	}
}

// resizeContainers judges the resources of the containers, and puts CPU and
// memory back into rest.
func resizeContainers(at check.At, rest, now, was *corev1.PodSpec) {
	for _, list := range []struct {
		name     string
		now, was []corev1.Container
	}{{"initContainers", now.InitContainers, was.InitContainers}, {"containers", now.Containers, was.Containers}} {
		for i := range list.was {
			at, r, old := at.Dot(list.name).Index(i).Dot("resources"), list.now[i].Resources, list.was[i].Resources
			if removed(r.Requests, old.Requests) {
				at.Dot("requests").Forbidden("resource requests cannot be removed")
			}
			if removed(r.Limits, old.Limits) {
				at.Dot("limits").Forbidden("resource limits cannot be removed")
			}
		}
	}
	for i := range rest.Containers {
		putBackContainer(&rest.Containers[i], &was.Containers[i])
		if !equality.Semantic.DeepEqual(rest.Containers[i], was.Containers[i]) {
			at.Forbidden("only cpu and memory resources are mutable")
		}
	}
	for i := range rest.InitContainers {
		c, at := &rest.InitContainers[i], at.Dot("initContainers").Index(i)
		changed := !equality.Semantic.DeepEqual(*c, was.InitContainers[i])
		putBackContainer(c, &was.InitContainers[i])
		if !equality.Semantic.DeepEqual(*c, was.InitContainers[i]) {
			at.Forbidden("only cpu and memory resources for init or sidecar containers are mutable")
		}
		if changed && !podspec.Sidecar(c) {
			for _, p := range c.ResizePolicy {
				if p.RestartPolicy == corev1.RestartContainer {
					at.Forbidden("non-sidecar init containers with a resize policy of RestartContainer cannot be resized")
				}
			}
		}
	}
}

// putBackContainer gives c the CPU and memory that it had. As upstream it
// loses its claims by that, so that what has claims cannot be resized.
func putBackContainer(c, was *corev1.Container) {
	c.Resources = corev1.ResourceRequirements{
		Limits:   putBack(c.Resources.Limits, was.Resources.Limits),
		Requests: putBack(c.Resources.Requests, was.Resources.Requests),
	}
}

func putBack(list, was corev1.ResourceList) corev1.ResourceList {
	if list == nil && was == nil {
		return nil
	}
	out := corev1.ResourceList{}
	maps.Copy(out, list)
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		delete(out, name)
		if q, ok := was[name]; ok {
			out[name] = q
		}
	}
	return out
}

func removed(now, was corev1.ResourceList) bool {
	for name := range was {
		if _, ok := now[name]; !ok {
			return true
		}
	}
	return false
}
