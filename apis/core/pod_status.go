package core

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/podspec"
)

// preparePodStatus keeps what a client that does not know of it leaves out.
func preparePodStatus(p, old *corev1.Pod) {
	if p.Status.QOSClass == "" {
		p.Status.QOSClass = old.Status.QOSClass
	}
	if p.Status.ObservedGeneration == 0 {
		p.Status.ObservedGeneration = old.Status.ObservedGeneration
	}
	had := map[corev1.PodConditionType][]int64{}
	for _, c := range old.Status.Conditions {
		had[c.Type] = append(had[c.Type], c.ObservedGeneration)
	}
	for i := range p.Status.Conditions {
		c := &p.Status.Conditions[i]
		if was := had[c.Type]; len(was) > 0 {
			had[c.Type] = was[1:]
			if c.ObservedGeneration == 0 {
				c.ObservedGeneration = was[0]
			}
		}
	}
	if len(old.Status.NodeAllocatableResourceClaimStatuses) == 0 {
		p.Status.NodeAllocatableResourceClaimStatuses = nil
	}
	for _, c := range statuses(p) {
		for i := range c.VolumeMounts {
			c.VolumeMounts[i].VolumeStatus = nil
		}
	}
}

func warnPodStatus(p, _ *corev1.Pod) []string {
	var w check.Warnings
	at := check.At{}.Dot("status")
	for i, ip := range podIPs(&p.Status) {
		meta.WarnIP(&w, at.Dot("podIPs").Index(i).Dot("ip"), ip)
	}
	for i, ip := range hostIPs(&p.Status) {
		meta.WarnIP(&w, at.Dot("hostIPs").Index(i).Dot("ip"), ip)
	}
	return w
}

// statuses are those of all of a pod's containers.
func statuses(p *corev1.Pod) (all []*corev1.ContainerStatus) {
	for _, list := range [][]corev1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses, p.Status.EphemeralContainerStatuses} {
		for i := range list {
			all = append(all, &list[i])
		}
	}
	return all
}

func validatePodStatus(p, old *corev1.Pod) field.ErrorList {
	at := check.New()
	annotationChanges(at.Dot("metadata.annotations"), p, old)
	status, s := at.Dot("status"), &p.Status
	for i, c := range s.Conditions {
		at := status.Dot("conditions").Index(i)
		if c.ObservedGeneration < 0 {
			at.Dot("observedGeneration").Invalid(c.ObservedGeneration, "must be a non-negative integer")
		}
		if c.Type != corev1.PodScheduled && c.Type != corev1.PodReady && c.Type != corev1.PodInitialized {
			at.Dot("Type").Qualified(string(c.Type)) // as upstream spells it
		}
	}
	if name := s.NominatedNodeName; name != "" && name != old.Status.NominatedNodeName {
		meta.Name(status.Dot("nominatedNodeName"), name)
		if old.Spec.NodeName != "" {
			status.Dot("nominatedNodeName").Forbidden("may not be set on pods that are already bound to a node")
		}
	}
	if s.ObservedGeneration < 0 {
		status.Dot("observedGeneration").Invalid(s.ObservedGeneration, "must be a non-negative integer")
	}
	status.Dot("qosClass").Same(s.QOSClass, old.Status.QOSClass)
	stateChanges(status, p, old)
	claimStatuses(status, p)
	addresses(status, s, &old.Status)
	for _, list := range containerLists(s) {
		at := status.Dot(list.name)
		for i := range list.statuses {
			containerUser(at.Index(i).Dot("user.linux"), &list.statuses[i], p.Spec.OS)
		}
	}
	for _, list := range containerLists(s) {
		at := status.Dot(list.name)
		for i := range list.statuses {
			allocated(at.Index(i).Dot("allocatedResourcesStatus"), &list.statuses[i], list.of(&p.Spec))
		}
	}
	return at.Errors()
}

type containerList struct {
	name     string
	statuses []corev1.ContainerStatus
	of       func(*corev1.PodSpec) []corev1.Container
}

func containerLists(s *corev1.PodStatus) []containerList {
	return []containerList{
		{"containerStatuses", s.ContainerStatuses, func(spec *corev1.PodSpec) []corev1.Container { return spec.Containers }},
		{"initContainerStatuses", s.InitContainerStatuses, func(spec *corev1.PodSpec) []corev1.Container { return spec.InitContainers }},
		{"ephemeralContainerStatuses", s.EphemeralContainerStatuses, func(*corev1.PodSpec) []corev1.Container { return nil }},
	}
}

// stateChanges forbids that a container runs again that has ended for good.
func stateChanges(at check.At, p, old *corev1.Pod) {
	now := containerLists(&p.Status)
	for i, was := range containerLists(&old.Status) {
		if was.of(&old.Spec) != nil && restartsAll(&old.Spec) {
			continue
		}
		for j, c := range was.statuses {
			if c.State.Terminated == nil {
				continue
			}
			k := slices.IndexFunc(now[i].statuses, func(n corev1.ContainerStatus) bool { return n.Name == c.Name })
			if k < 0 || now[i].statuses[k].State.Terminated != nil {
				continue
			}
			ctrs := was.of(&old.Spec)
			n := slices.IndexFunc(ctrs, func(ctr corev1.Container) bool { return ctr.Name == c.Name })
			if n < 0 || !restarts(&ctrs[n], &old.Spec, c.State.Terminated.ExitCode) {
				at.Dot(was.name).Index(j).Dot("state").Forbidden("may not be transitioned to non-terminated state")
			}
		}
	}
}

// restartsAll reports whether the end of one container may start all again.
func restartsAll(spec *corev1.PodSpec) bool {
	for _, c := range podspec.Containers(check.At{}, spec) {
		for _, r := range c.RestartPolicyRules {
			if r.Action == corev1.ContainerRestartRuleActionRestartAllContainers {
				return true
			}
		}
	}
	return false
}

// restarts reports whether a container that ended with code is started again.
func restarts(c *corev1.Container, spec *corev1.PodSpec, code int32) bool {
	for _, r := range c.RestartPolicyRules {
		if r.ExitCodes == nil {
			continue
		}
		in := slices.Contains(r.ExitCodes.Values, code)
		if in == (r.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn) {
			return true
		}
	}
	policy := string(spec.RestartPolicy)
	if c.RestartPolicy != nil {
		policy = string(*c.RestartPolicy)
	}
	return policy == "Always" || policy == "OnFailure" && code != 0
}

func claimStatuses(status check.At, p *corev1.Pod) {
	names := check.Set[string]{}
	for i, c := range p.Status.ResourceClaimStatuses {
		at := status.Dot("resourceClaimStatuses").Index(i)
		if !slices.ContainsFunc(p.Spec.ResourceClaims, func(own corev1.PodResourceClaim) bool { return own.Name == c.Name }) {
			at.Dot("name").Invalid(c.Name, "must match the name of an entry in `spec.resourceClaims`")
		}
		if names.Twice(c.Name) {
			at.Dot("name").Duplicate(c.Name)
		}
		if c.ResourceClaimName != nil {
			meta.Name(at.Dot("resourceClaimName"), *c.ResourceClaimName)
		}
	}
	s := p.Status.ExtendedResourceClaimStatus
	if s == nil {
		return
	}
	at := status.Dot("extendedResourceClaimStatus")
	outside, mappings := at, at.Dot("requestMappings")
	if len(s.RequestMappings) == 0 {
		mappings.Required("at least one request mapping is required")
	}
	containers := map[string]corev1.Container{}
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		containers[c.Name] = c
	}
	seen := check.Set[corev1.ContainerExtendedResourceRequest]{}
	for i, m := range s.RequestMappings {
		at := mappings.Index(i)
		c, ok := containers[m.ContainerName]
		if !ok {
			at.Dot("containerName").Invalid(m.ContainerName, "must match the name of an entry in spec.initContainers.name or spec.containers.name")
		} else if _, ok := c.Resources.Requests[corev1.ResourceName(m.ResourceName)]; !ok {
			at.Dot("resourceName").Invalid(m.ResourceName,
				"must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests")
		}
		outside.Dot("requestName").Label(m.RequestName) // as upstream: which mapping is not told
		if seen.Twice(m) {
			at.Dot("containerName").Duplicate(m.ContainerName)
			at.Dot("resourceName").Duplicate(m.ResourceName)
			at.Dot("requestName").Duplicate(m.RequestName)
		}
	}
	if at.Dot("resourceClaimName").Present(s.ResourceClaimName) {
		meta.Name(at.Dot("resourceClaimName"), s.ResourceClaimName)
	}
}

func addresses(status check.At, s, old *corev1.PodStatus) {
	one := func(at check.At, value any, now, had []string) {
		for i, ip := range now {
			meta.IP(at.Index(i), ip, had...)
		}
		meta.DualStack(at, value, now)
	}
	one(status.Dot("podIPs"), check.Bare(s.PodIPs), podIPs(s), podIPs(old))
	if len(s.HostIPs) == 0 {
		return
	}
	at := status.Dot("hostIPs")
	if s.HostIP != s.HostIPs[0].IP {
		at.Index(0).Dot("ip").Invalid(s.HostIPs[0].IP, "must be equal to `hostIP`")
	}
	one(at, check.Bare(s.HostIPs), hostIPs(s), hostIPs(old))
}

func podIPs(s *corev1.PodStatus) (ips []string) {
	for _, ip := range s.PodIPs {
		ips = append(ips, ip.IP)
	}
	return ips
}

func hostIPs(s *corev1.PodStatus) (ips []string) {
	for _, ip := range s.HostIPs {
		ips = append(ips, ip.IP)
	}
	return ips
}

func containerUser(at check.At, c *corev1.ContainerStatus, os *corev1.PodOS) {
	if c.User == nil || c.User.Linux == nil {
		return
	}
	if os != nil && os.Name == corev1.Windows {
		at.Forbidden("cannot be set for a windows pod")
		return
	}
	u := c.User.Linux
	at.Dot("uid").Wrong(u.UID, utilvalidation.IsValidUserID(u.UID))
	at.Dot("gid").Wrong(u.GID, utilvalidation.IsValidGroupID(u.GID))
	for i, g := range u.SupplementalGroups {
		at.Dot("supplementalGroups").Index(i).Wrong(g, utilvalidation.IsValidGroupID(g))
	}
}

// allocated checks the health of the devices that a container uses.
func allocated(at check.At, c *corev1.ContainerStatus, containers []corev1.Container) {
	const longest = 1024
	i := slices.IndexFunc(containers, func(ctr corev1.Container) bool { return ctr.Name == c.Name })
	if containers == nil {
		if len(c.AllocatedResourcesStatus) > 0 {
			at.Forbidden("must not be specified in container status")
		}
		return
	}
	for j, r := range c.AllocatedResourcesStatus {
		at := at.Index(j)
		if i >= 0 {
			asks(at.Dot("name"), r.Name, &containers[i].Resources)
		}
		ids := check.Set[corev1.ResourceID]{}
		for k, h := range r.Resources {
			at := at.Dot("resources").Index(k)
			check.OneOf(at.Dot("health"), h.Health,
				corev1.ResourceHealthStatusHealthy, corev1.ResourceHealthStatusUnhealthy, corev1.ResourceHealthStatusUnknown)
			if h.Message != nil && *h.Message == "" {
				at.Dot("message").Required("must be non-empty if specified")
			} else if len(meta.Deref(h.Message, "")) > longest {
				at.Dot("message").TooLong(longest)
			}
			if ids.Twice(h.ResourceID) {
				at.Dot("resourceID").Duplicate(h.ResourceID)
			}
		}
	}
}

// asks demands that a container asks for what it is said to have.
func asks(at check.At, name corev1.ResourceName, r *corev1.ResourceRequirements) {
	claim, isClaim := strings.CutPrefix(string(name), "claim:")
	if !isClaim {
		if _, ok := r.Requests[name]; !ok {
			at.Invalid(name, "must match one of the container's resource requests")
		}
		return
	}
	for _, c := range r.Claims {
		if claim == c.Name && c.Request == "" || claim == c.Name+"/"+c.Request && c.Request != "" {
			return
		}
	}
	at.Invalid(name, "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty")
}
