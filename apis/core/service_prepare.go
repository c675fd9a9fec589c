package core

import (
	"cmp"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-dev/knarr/apis/meta"
)

func defaultService(s *corev1.Service) {
	spec := &s.Spec
	spec.Type = cmp.Or(spec.Type, corev1.ServiceTypeClusterIP)
	spec.SessionAffinity = cmp.Or(spec.SessionAffinity, corev1.ServiceAffinityNone)
	switch c := spec.SessionAffinityConfig; spec.SessionAffinity {
	case corev1.ServiceAffinityNone:
		spec.SessionAffinityConfig = nil
	case corev1.ServiceAffinityClientIP:
		if c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
			spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{
				ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(corev1.DefaultClientIPServiceAffinitySeconds)},
			}
		}
	}
	for i := range spec.Ports {
		p := &spec.Ports[i]
		p.Protocol = cmp.Or(p.Protocol, corev1.ProtocolTCP)
		if p.TargetPort == intstr.FromInt32(0) || p.TargetPort == intstr.FromString("") {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
	if reachable(s) {
		spec.ExternalTrafficPolicy = cmp.Or(spec.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster)
	}
	switch p := spec.InternalTrafficPolicy; {
	case p == nil && inCluster(s):
		spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyCluster)
	case p != nil && spec.Type == corev1.ServiceTypeExternalName && slices.Contains(internalPolicies, *p):
		spec.InternalTrafficPolicy = nil
	}
	if spec.Type != corev1.ServiceTypeLoadBalancer {
		return
	}
	spec.AllocateLoadBalancerNodePorts = cmp.Or(spec.AllocateLoadBalancerNodePorts, new(true))
	for i := range s.Status.LoadBalancer.Ingress {
		if in := &s.Status.LoadBalancer.Ingress[i]; in.IP != "" {
			in.IPMode = cmp.Or(in.IPMode, new(corev1.LoadBalancerIPModeVIP))
		}
	}
}

var internalPolicies = []corev1.ServiceInternalTrafficPolicy{
	corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal,
}

// reachable reports whether the service is meant to be reached from outside.
func reachable(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer || s.Spec.Type == corev1.ServiceTypeNodePort ||
		s.Spec.Type == corev1.ServiceTypeClusterIP && len(s.Spec.ExternalIPs) > 0
}

// inCluster reports whether the service has an address of the cluster's own, if any.
func inCluster(s *corev1.Service) bool {
	return slices.Contains([]corev1.ServiceType{corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer}, s.Spec.Type)
}

// hasNodePorts reports whether the service is of a type with ports on the nodes.
func hasNodePorts(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeNodePort || s.Spec.Type == corev1.ServiceTypeLoadBalancer
}

// checked reports whether nodes tell at a port whether they have an endpoint.
func checked(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

func headless(s *corev1.Service) bool {
	return len(s.Spec.ClusterIPs) == 1 && s.Spec.ClusterIPs[0] == corev1.ClusterIPNone
}

// prepareService carries over what was allocated and the client left out, and
// clears what another type has no use for. What has to be allocated then is
// done by registry/alloc, before the service is validated.
func prepareService(s, old *corev1.Service) {
	if old == nil {
		s.Status = corev1.ServiceStatus{}
		if s.Spec.ClusterIP != "" && len(s.Spec.ClusterIPs) == 0 {
			s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
		}
		return
	}
	s.Status = old.Status
	keepAllocated(s, old)
	matchClusterIPs(s, old)
	clearOfType(s, old)
}

// keepAllocated gives s what old has and it does not name.
func keepAllocated(s, old *corev1.Service) {
	if s.Spec.Type != corev1.ServiceTypeExternalName && old.Spec.Type != corev1.ServiceTypeExternalName {
		s.Spec.ClusterIP = cmp.Or(s.Spec.ClusterIP, old.Spec.ClusterIP)
		if len(s.Spec.ClusterIPs) == 0 {
			s.Spec.ClusterIPs = old.Spec.ClusterIPs
		}
	}
	wants := func(s *corev1.Service) bool {
		return s.Spec.Type == corev1.ServiceTypeNodePort ||
			s.Spec.Type == corev1.ServiceTypeLoadBalancer && meta.Deref(s.Spec.AllocateLoadBalancerNodePorts, true)
	}
	if wants(s) && wants(old) {
		named, had := map[int32]bool{}, map[string]int32{}
		for _, p := range s.Spec.Ports {
			named[p.NodePort] = true
		}
		for _, p := range old.Spec.Ports {
			had[p.Name] = p.NodePort
		}
		for i := range s.Spec.Ports {
			if p := &s.Spec.Ports[i]; p.NodePort == 0 && !named[had[p.Name]] {
				p.NodePort = had[p.Name]
			}
		}
	}
	if checked(s) && checked(old) {
		s.Spec.HealthCheckNodePort = cmp.Or(s.Spec.HealthCheckNodePort, old.Spec.HealthCheckNodePort)
	}
}

// matchClusterIPs lets a client that knows only the one address, or only the
// list, change both.
func matchClusterIPs(s, old *corev1.Service) {
	was, now := &old.Spec, &s.Spec
	if len(was.ClusterIPs) > 0 && len(now.ClusterIPs) == 0 && was.ClusterIP == now.ClusterIP {
		now.ClusterIPs = was.ClusterIPs
	}
	if was.ClusterIP == now.ClusterIP || !slices.Equal(was.ClusterIPs, now.ClusterIPs) {
		return
	}
	if now.ClusterIP == "" {
		now.ClusterIPs = nil
	} else {
		now.ClusterIPs = []string{now.ClusterIP}
	}
}

// clearOfType clears what old needed for its type and s does not for its own,
// where the client just sent it back.
func clearOfType(s, old *corev1.Service) {
	now, was := &s.Spec, &old.Spec
	external := corev1.ServiceTypeExternalName
	if was.Type != external && now.Type == external {
		if now.ClusterIP == was.ClusterIP && slices.Equal(now.ClusterIPs, was.ClusterIPs) {
			now.ClusterIP, now.ClusterIPs = "", nil
		}
		if reflect.DeepEqual(now.IPFamilies, was.IPFamilies) {
			now.IPFamilies = nil
		}
		if reflect.DeepEqual(now.IPFamilyPolicy, was.IPFamilyPolicy) {
			now.IPFamilyPolicy = nil
		}
	}
	if hasNodePorts(old) && !hasNodePorts(s) && !newNodePorts(s, old) {
		for i := range now.Ports {
			now.Ports[i].NodePort = 0
		}
	}
	if checked(old) && !checked(s) && now.HealthCheckNodePort == was.HealthCheckNodePort {
		now.HealthCheckNodePort = 0
	}
	if was.Type == corev1.ServiceTypeLoadBalancer && now.Type != corev1.ServiceTypeLoadBalancer {
		if reflect.DeepEqual(now.AllocateLoadBalancerNodePorts, was.AllocateLoadBalancerNodePorts) {
			now.AllocateLoadBalancerNodePorts = nil
		}
		if reflect.DeepEqual(now.LoadBalancerClass, was.LoadBalancerClass) {
			now.LoadBalancerClass = nil
		}
	}
	if reachable(old) && !reachable(s) && now.ExternalTrafficPolicy == was.ExternalTrafficPolicy {
		now.ExternalTrafficPolicy = ""
	}
	if now.Type != corev1.ServiceTypeLoadBalancer {
		s.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	}
}

// newNodePorts reports whether s names a port of the nodes that old has not.
func newNodePorts(s, old *corev1.Service) bool {
	had := map[int32]bool{0: true}
	for _, p := range old.Spec.Ports {
		had[p.NodePort] = true
	}
	return slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return !had[p.NodePort] })
}
