package podspec

import (
	"cmp"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/volume"
)

// Default fills the spec of a pod or of a template.
func Default(spec *corev1.PodSpec) {
	spec.DNSPolicy = cmp.Or(spec.DNSPolicy, corev1.DNSClusterFirst)
	spec.RestartPolicy = cmp.Or(spec.RestartPolicy, corev1.RestartPolicyAlways)
	spec.SecurityContext = cmp.Or(spec.SecurityContext, &corev1.PodSecurityContext{})
	spec.TerminationGracePeriodSeconds = cmp.Or(spec.TerminationGracePeriodSeconds, new(int64(corev1.DefaultTerminationGracePeriodSeconds)))
	spec.SchedulerName = cmp.Or(spec.SchedulerName, corev1.DefaultSchedulerName)
	// Two names of one field: the newer wins.
	spec.ServiceAccountName = cmp.Or(spec.ServiceAccountName, spec.DeprecatedServiceAccount)
	spec.DeprecatedServiceAccount = spec.ServiceAccountName

	for i := range spec.Volumes {
		defaultVolume(&spec.Volumes[i])
	}
	for _, c := range Containers(check.At{}, spec) {
		defaultContainer(c)
	}
	meta.RoundUp(spec.Overhead)
	if spec.Resources != nil {
		meta.RoundUp(spec.Resources.Limits)
		meta.RoundUp(spec.Resources.Requests)
	}
}

// DefaultPod fills what only a pod has filled: what it asks for where it only
// says what it may use at most, and the ports of the node that it takes.
func DefaultPod(p *corev1.Pod) {
	spec := &p.Spec
	for _, all := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range all {
			r := &all[i].Resources
			r.Requests = fill(r.Requests, r.Limits, func(corev1.ResourceName) bool { return true })
		}
	}
	if r := spec.Resources; r != nil {
		defaultPodResources(p, r)
	}
	spec.EnableServiceLinks = cmp.Or(spec.EnableServiceLinks, new(corev1.DefaultEnableServiceLinks))
	if spec.HostNetwork {
		for _, all := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
			for i := range all {
				for j := range all[i].Ports {
					port := &all[i].Ports[j]
					port.HostPort = cmp.Or(port.HostPort, port.ContainerPort)
				}
			}
		}
	}
	Default(spec)
	if *spec.TerminationGracePeriodSeconds < 0 {
		spec.TerminationGracePeriodSeconds = new(int64(1))
	}
}

// defaultPodResources fills what the pod as a whole may use and asks for from
// what its containers do.
func defaultPodResources(p *corev1.Pod, r *corev1.ResourceRequirements) {
	if len(r.Limits) > 0 || len(r.Requests) > 0 {
		limits := resource.AggregateContainerLimits(p, resource.PodResourcesOptions{})
		r.Limits = fill(r.Limits, limits, func(name corev1.ResourceName) bool {
			_, asked := r.Requests[name]
			return meta.HugePages(name) && !asked
		})
	}
	if len(r.Limits) > 0 {
		requests := resource.AggregateContainerRequests(p, resource.PodResourcesOptions{})
		r.Requests = fill(r.Requests, requests, func(name corev1.ResourceName) bool {
			return resource.IsSupportedPodLevelResource(name) && meta.Overcommits(name)
		})
		r.Requests = fill(r.Requests, r.Limits, resource.IsSupportedPodLevelResource)
	}
}

// fill adds what from has and into lacks, of what is wanted. Where into is nil
// it stays so if from is empty.
func fill(into, from corev1.ResourceList, wanted func(corev1.ResourceName) bool) corev1.ResourceList {
	if into == nil && from != nil {
		into = corev1.ResourceList{}
	}
	for name, q := range from {
		if _, has := into[name]; !has && wanted(name) {
			into[name] = q.DeepCopy()
		}
	}
	return into
}

func defaultContainer(c *corev1.Container) {
	c.ImagePullPolicy = cmp.Or(c.ImagePullPolicy, pullPolicy(c.Image))
	c.TerminationMessagePath = cmp.Or(c.TerminationMessagePath, corev1.TerminationMessagePathDefault)
	c.TerminationMessagePolicy = cmp.Or(c.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
	for i := range c.Ports {
		c.Ports[i].Protocol = cmp.Or(c.Ports[i].Protocol, corev1.ProtocolTCP)
	}
	for i := range c.Env {
		if from := c.Env[i].ValueFrom; from != nil {
			volume.DefaultFieldRef(from.FieldRef)
			if from.FileKeyRef != nil {
				from.FileKeyRef.Optional = cmp.Or(from.FileKeyRef.Optional, new(false))
			}
		}
	}
	meta.RoundUp(c.Resources.Limits)
	meta.RoundUp(c.Resources.Requests)
	for _, probe := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		defaultProbe(probe)
	}
	if c.Lifecycle != nil {
		for _, handler := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
			if handler != nil {
				defaultHTTPGet(handler.HTTPGet)
			}
		}
	}
}

func defaultProbe(p *corev1.Probe) {
	if p == nil {
		return
	}
	p.TimeoutSeconds = cmp.Or(p.TimeoutSeconds, 1)
	p.PeriodSeconds = cmp.Or(p.PeriodSeconds, 10)
	p.SuccessThreshold = cmp.Or(p.SuccessThreshold, 1)
	p.FailureThreshold = cmp.Or(p.FailureThreshold, 3)
	defaultHTTPGet(p.HTTPGet)
	if p.GRPC != nil {
		p.GRPC.Service = cmp.Or(p.GRPC.Service, new(""))
	}
}

func defaultHTTPGet(h *corev1.HTTPGetAction) {
	if h != nil {
		h.Path = cmp.Or(h.Path, "/")
		h.Scheme = cmp.Or(h.Scheme, corev1.URISchemeHTTP)
	}
}

func defaultVolume(v *corev1.Volume) {
	if v.VolumeSource == (corev1.VolumeSource{}) {
		v.EmptyDir = &corev1.EmptyDirVolumeSource{}
	}
	if v.Image != nil {
		v.Image.PullPolicy = cmp.Or(v.Image.PullPolicy, pullPolicy(v.Image.Reference))
	}
	volume.DefaultSource(&v.VolumeSource)
}

func pullPolicy(image string) corev1.PullPolicy {
	if meta.Latest(image) {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}
