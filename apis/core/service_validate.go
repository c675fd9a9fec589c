package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

const onlyLoadBalancer = "may only be used when `type` is 'LoadBalancer'"

func validateService(s, old *corev1.Service) field.ErrorList {
	at := check.New()
	spec := at.Dot("spec")
	if old != nil {
		clusterIPChanges(spec, s, old)
		familyChanges(spec, s, old)
		loadBalancerClass(spec.Dot("loadBalancerClass"), s, old)
		if checked(s) && checked(old) && s.Spec.HealthCheckNodePort != old.Spec.HealthCheckNodePort {
			spec.Dot("healthCheckNodePort").Forbidden("field is immutable")
		}
	}
	topologyAnnotations(at.Dot("metadata.annotations"), s)
	serviceType(spec, s)
	names := check.Set[string]{}
	for i := range s.Spec.Ports {
		servicePort(spec.Dot("ports").Index(i), &s.Spec.Ports[i], len(s.Spec.Ports) > 1, names)
	}
	if s.Spec.Selector != nil {
		meta.Labels(spec.Dot("selector"), s.Spec.Selector)
	}
	sessionAffinity(spec, s)
	clusterIPs(spec, s, old)
	var had []string
	if old != nil {
		had = old.Spec.ExternalIPs
	}
	for i, ip := range s.Spec.ExternalIPs {
		at, before := spec.Dot("externalIPs").Index(i), at.Found()
		if meta.IP(at, ip, had...); at.Found() == before {
			meta.EndpointIP(at, ip)
		}
	}
	check.Choice(spec.Dot("type"), s.Spec.Type,
		corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeExternalName)
	distinctPorts(spec.Dot("ports"), s)
	sourceRanges(at, s, old)
	allocate := s.Spec.AllocateLoadBalancerNodePorts
	if allocate != nil && s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		spec.Dot("allocateLoadBalancerNodePorts").Forbidden(onlyLoadBalancer)
	}
	if allocate == nil && s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		at.Dot("allocateLoadBalancerNodePorts").Required("")
	}
	loadBalancerClass(spec.Dot("loadBalancerClass"), s, nil)
	trafficPolicies(spec, s)
	return at.Errors()
}

func topologyAnnotations(at check.At, s *corev1.Service) {
	hints, hinted := s.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]
	mode, told := s.Annotations[corev1.AnnotationTopologyMode]
	if hinted && told && hints != mode {
		at.Key(corev1.AnnotationTopologyMode).Invalid(mode,
			fmt.Sprintf("must match annotations[%s] when both are specified", corev1.DeprecatedAnnotationTopologyAwareHints))
	}
}

// serviceType checks what must and may be set for the type of the service.
func serviceType(at check.At, s *corev1.Service) {
	if len(s.Spec.Ports) == 0 && !headless(s) && s.Spec.Type != corev1.ServiceTypeExternalName {
		at.Dot("ports").Required("")
	}
	switch s.Spec.Type {
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		if headless(s) {
			at.Dot("clusterIPs").Index(0).Invalid(s.Spec.ClusterIPs[0], fmt.Sprintf("may not be set to 'None' for %s services", s.Spec.Type))
		}
	case corev1.ServiceTypeExternalName:
		const detail = "may not be set for ExternalName services"
		if len(s.Spec.ClusterIPs) > 0 {
			at.Dot("clusterIPs").Forbidden(detail)
		}
		if len(s.Spec.IPFamilies) > 0 {
			at.Dot("ipFamilies").Forbidden(detail)
		}
		if s.Spec.IPFamilyPolicy != nil {
			at.Dot("ipFamilyPolicy").Forbidden(detail)
		}
		name := strings.TrimSuffix(s.Spec.ExternalName, ".")
		if at.Dot("externalName").Present(name) {
			at.Dot("externalName").Subdomain(name)
		}
	}
}

func servicePort(at check.At, p *corev1.ServicePort, named bool, names check.Set[string]) {
	switch name := at.Dot("name"); {
	case p.Name != "":
		name.Label(p.Name)
		if names.Twice(p.Name) {
			name.Duplicate(p.Name)
		}
	case named:
		name.Required("")
	}
	at.Dot("port").Wrong(p.Port, utilvalidation.IsValidPortNum(int(p.Port)))
	meta.Protocol(at.Dot("protocol"), p.Protocol)
	meta.Port(at.Dot("targetPort"), p.TargetPort)
	if p.AppProtocol != nil {
		at.Dot("appProtocol").Qualified(*p.AppProtocol)
	}
}

func sessionAffinity(at check.At, s *corev1.Service) {
	check.Choice(at.Dot("sessionAffinity"), s.Spec.SessionAffinity, corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone)
	c, at := s.Spec.SessionAffinityConfig, at.Dot("sessionAffinityConfig")
	switch s.Spec.SessionAffinity {
	case corev1.ServiceAffinityNone:
		if c != nil {
			at.Forbidden("must not be set when session affinity is None")
		}
	case corev1.ServiceAffinityClientIP:
		const needed, longest = "when session affinity type is ClientIP", 86400
		switch {
		case c == nil:
			at.Required(needed)
		case c.ClientIP == nil:
			at.Dot("clientIP").Required(needed)
		case c.ClientIP.TimeoutSeconds == nil:
			at.Dot("clientIP.timeoutSeconds").Required(needed)
		case *c.ClientIP.TimeoutSeconds <= 0 || *c.ClientIP.TimeoutSeconds > longest:
			at.Dot("clientIP.timeoutSeconds").Invalid(*c.ClientIP.TimeoutSeconds, fmt.Sprintf("must be greater than 0 and less than %d", longest))
		}
	}
}

// ValidateClusterIPs checks but the addresses of a service and their families:
// what registry/alloc must know to be right before it allocates any.
func ValidateClusterIPs(s, old *corev1.Service) field.ErrorList {
	at := check.New()
	clusterIPs(at.Dot("spec"), s, old)
	return at.Errors()
}

// clusterIPs checks the addresses of the service, and their families.
func clusterIPs(spec check.At, s, old *corev1.Service) {
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return
	}
	at, ips := spec.Dot("clusterIPs"), s.Spec.ClusterIPs
	switch {
	case s.Spec.ClusterIP == "" && len(ips) > 0:
		at.Invalid(ips, "must be empty when `clusterIP` is not specified")
	case s.Spec.ClusterIP != "" && len(ips) == 0:
		at.Required("")
	case s.Spec.ClusterIP != "" && ips[0] != s.Spec.ClusterIP:
		at.Invalid(ips, "first value must match `clusterIP`")
	}
	families := check.Set[corev1.IPFamily]{}
	for i, f := range s.Spec.IPFamilies {
		at := spec.Dot("ipFamilies").Index(i)
		check.OneOf(at, f, corev1.IPv4Protocol, corev1.IPv6Protocol)
		if families.Twice(f) {
			at.Duplicate(f)
		}
	}
	if p := s.Spec.IPFamilyPolicy; p != nil {
		check.OneOf(spec.Dot("ipFamilyPolicy"), *p,
			corev1.IPFamilyPolicySingleStack, corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack)
	}
	var had []string
	if old != nil {
		had = old.Spec.ClusterIPs
	}
	bad := false
	for i, ip := range ips {
		before := at.Found()
		if i > 0 || ip != corev1.ClusterIPNone {
			meta.IP(at.Index(i), ip, had...)
		} else if len(ips) > 1 {
			at.Invalid(ips, "'None' must be the first and only value")
		}
		bad = bad || at.Found() > before
	}
	if len(ips) > 2 {
		at.Invalid(ips, "may only hold up to 2 values")
	}
	if bad {
		return
	}
	if dual, err := netutils.IsDualStackIPStrings(ips); len(ips) > 1 && (err != nil || !dual) {
		at.Invalid(ips, "may specify no more than one IP for each IP family")
	}
	for i, f := range s.Spec.IPFamilies {
		if i < len(ips) && !headless(s) && netutils.IsIPv6String(ips[i]) != (f == corev1.IPv6Protocol) {
			at.Index(i).Invalid(ips[i], fmt.Sprintf("expected an %s value as indicated by `ipFamilies[%d]`", f, i))
		}
	}
}

// clusterIPChanges lets a second address come and go, and nothing else change.
func clusterIPChanges(spec check.At, s, old *corev1.Service) {
	const fixed = "may not change once set"
	if s.Spec.Type == corev1.ServiceTypeExternalName || old.Spec.Type == corev1.ServiceTypeExternalName || headless(s) && headless(old) {
		return
	}
	at, now, was := spec.Dot("clusterIPs"), s.Spec.ClusterIPs, old.Spec.ClusterIPs
	switch {
	case len(now) == len(was):
		for i := range was {
			if was[i] != now[i] {
				at.Index(i).Invalid(now, fixed)
			}
		}
		return
	case len(now) == 0:
		at.Index(0).Invalid(now, "primary clusterIP can not be unset")
	case len(was) > 0 && now[0] != was[0]:
		at.Index(0).Invalid(now, fixed)
	}
	if len(was) > len(now) && len(now) == 1 && meta.Deref(s.Spec.IPFamilyPolicy, "") != corev1.IPFamilyPolicySingleStack {
		spec.Dot("ipFamilyPolicy").Invalid(s.Spec.IPFamilyPolicy, "must be set to 'SingleStack' when releasing the secondary clusterIP")
	}
}

// familyChanges lets a second family come and go, and nothing else change.
func familyChanges(spec check.At, s, old *corev1.Service) {
	const fixed = "may not change once set"
	if s.Spec.Type == corev1.ServiceTypeExternalName || old.Spec.Type == corev1.ServiceTypeExternalName || headless(s) || headless(old) {
		return
	}
	at, now, was := spec.Dot("ipFamilies").Index(0), s.Spec.IPFamilies, old.Spec.IPFamilies
	switch {
	case len(now) == len(was):
		for i := range was {
			if was[i] != now[i] {
				at.Invalid(now, fixed)
			}
		}
		return
	case len(now) < len(was) && len(s.Spec.ClusterIPs) == 0:
		at.Invalid(now, "primary ipFamily can not be unset")
	}
	if len(was) > 0 && len(now) > 0 && now[0] != was[0] {
		at.Invalid(s.Spec.ClusterIPs, fixed) // as upstream: the value told is not that of the field
	}
	if len(was) > len(now) && len(now) == 1 && meta.Deref(s.Spec.IPFamilyPolicy, "") != corev1.IPFamilyPolicySingleStack {
		spec.Dot("ipFamilyPolicy").Invalid(s.Spec.IPFamilyPolicy, "must be set to 'SingleStack' when releasing the secondary ipFamily")
	}
}

// loadBalancerClass checks the class where old is nil, else that it has not changed as well.
func loadBalancerClass(at check.At, s, old *corev1.Service) {
	balanced := func(s *corev1.Service) bool { return s.Spec.Type == corev1.ServiceTypeLoadBalancer }
	class := s.Spec.LoadBalancerClass
	if old != nil && balanced(old) && balanced(s) && (class == nil) != (old.Spec.LoadBalancerClass == nil) ||
		old != nil && balanced(old) && balanced(s) && meta.Deref(class, "") != meta.Deref(old.Spec.LoadBalancerClass, "") {
		at.Invalid(class, "may not change once set")
	}
	switch {
	case class == nil:
	case balanced(s):
		at.Qualified(*class)
	default:
		at.Forbidden(onlyLoadBalancer)
	}
}

// distinctPorts demands that no port stands twice, on the nodes or in the cluster.
func distinctPorts(at check.At, s *corev1.Service) {
	onNodes, inCluster := check.Set[corev1.ServicePort]{}, check.Set[corev1.ServicePort]{}
	for i, p := range s.Spec.Ports {
		if p.NodePort != 0 && s.Spec.Type == corev1.ServiceTypeClusterIP {
			at.Index(i).Dot("nodePort").Forbidden("may not be used when `type` is 'ClusterIP'")
		}
	}
	for i, p := range s.Spec.Ports {
		if p.NodePort != 0 && onNodes.Twice(corev1.ServicePort{Protocol: p.Protocol, NodePort: p.NodePort}) {
			at.Index(i).Dot("nodePort").Duplicate(p.NodePort)
		}
	}
	for i, p := range s.Spec.Ports {
		if key := (corev1.ServicePort{Protocol: p.Protocol, Port: p.Port}); inCluster.Twice(key) {
			at.Index(i).Duplicate(check.Bare(key))
		}
	}
}

// sourceRanges checks whence a load balancer lets traffic in. An annotation
// says so too.
func sourceRanges(at check.At, s, old *corev1.Service) {
	balanced := s.Spec.Type == corev1.ServiceTypeLoadBalancer
	if len(s.Spec.LoadBalancerSourceRanges) > 0 {
		at := at.Dot("spec.LoadBalancerSourceRanges") // as upstream spells it
		if !balanced {
			at.Forbidden(onlyLoadBalancer)
		}
		var had []string
		if old != nil {
			for _, r := range old.Spec.LoadBalancerSourceRanges {
				had = append(had, strings.TrimSpace(r))
			}
		}
		for i, r := range s.Spec.LoadBalancerSourceRanges {
			meta.CIDR(at.Index(i), strings.TrimSpace(r), had...)
		}
		return
	}
	text, told := s.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]
	if !told {
		return
	}
	at = at.Dot("metadata.annotations").Key(corev1.AnnotationLoadBalancerSourceRangesKey)
	if !balanced {
		at.Forbidden(onlyLoadBalancer)
	}
	unchanged := old != nil && old.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey] == text
	if text = strings.TrimSpace(text); unchanged || text == "" {
		return
	}
	for r := range strings.SplitSeq(text, ",") {
		meta.CIDR(at, strings.TrimSpace(r))
	}
}

func trafficPolicies(at check.At, s *corev1.Service) {
	external := at.Dot("externalTrafficPolicy")
	if reachable(s) {
		check.Choice(external, s.Spec.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)
	} else if s.Spec.ExternalTrafficPolicy != "" {
		external.Invalid(s.Spec.ExternalTrafficPolicy, "may only be set for externally-accessible services")
	}
	port := at.Dot("healthCheckNodePort")
	switch n := s.Spec.HealthCheckNodePort; {
	case !checked(s) && n != 0:
		port.Invalid(n, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'")
	case !checked(s):
	case n == 0:
		port.Required("")
	default:
		port.Wrong(n, utilvalidation.IsValidPortNum(int(n)))
	}
	switch p := s.Spec.InternalTrafficPolicy; {
	case p != nil:
		check.OneOf(at.Dot("internalTrafficPolicy"), *p, internalPolicies...)
	case inCluster(s):
		at.Dot("internalTrafficPolicy").Required("")
	}
	if d := s.Spec.TrafficDistribution; d != nil {
		check.Listed(at.Dot("trafficDistribution"), *d,
			corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode)
	}
}

func validateServiceStatus(s, old *corev1.Service) field.ErrorList {
	at := check.New()
	in := at.Dot("status.loadBalancer.ingress")
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		if len(s.Status.LoadBalancer.Ingress) > 0 {
			in.Forbidden("may only be used when `spec.type` is 'LoadBalancer'")
		}
		return at.Errors()
	}
	var had []string
	for _, i := range old.Status.LoadBalancer.Ingress {
		if i.IP != "" {
			had = append(had, i.IP)
		}
	}
	for i, ingress := range s.Status.LoadBalancer.Ingress {
		at, mode := in.Index(i), ingress.IPMode
		if ingress.IP != "" {
			meta.IP(at.Dot("ip"), ingress.IP, had...)
		}
		switch {
		case mode == nil && ingress.IP != "":
			at.Dot("ipMode").Required("must be specified when `ip` is set")
		case mode == nil:
		case ingress.IP == "":
			at.Dot("ipMode").Forbidden("may not be specified when `ip` is not set")
		default:
			check.OneOf(at.Dot("ipMode"), *mode, corev1.LoadBalancerIPModeVIP, corev1.LoadBalancerIPModeProxy)
		}
		if ingress.Hostname != "" {
			at.Dot("hostname").Subdomain(ingress.Hostname)
			if netutils.ParseIPSloppy(ingress.Hostname) != nil {
				at.Dot("hostname").Invalid(ingress.Hostname, "must be a DNS name, not an IP address")
			}
		}
	}
	return at.Errors()
}

func warnServiceStatus(s, _ *corev1.Service) []string {
	var w check.Warnings
	for i, ingress := range s.Status.LoadBalancer.Ingress {
		if ingress.IP != "" {
			meta.WarnIP(&w, check.At{}.Dot("status.loadBalancer.ingress").Index(i), ingress.IP)
		}
	}
	return w
}

func warnService(s, _ *corev1.Service) []string {
	var w check.Warnings
	at, spec := check.At{}.Dot("spec"), &s.Spec
	ignored := func(what, when string) { w.Add("spec." + what + " is ignored " + when) }
	if _, old := s.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]; old {
		w.Add("annotation " + corev1.DeprecatedAnnotationTopologyAwareHints + " is deprecated, please use " + corev1.AnnotationTopologyMode + " instead")
	}
	none := spec.Type == corev1.ServiceTypeClusterIP && spec.ClusterIP == corev1.ClusterIPNone
	if spec.ClusterIP != "" && spec.ClusterIP != corev1.ClusterIPNone {
		for i, ip := range spec.ClusterIPs {
			meta.WarnIP(&w, at.Dot("clusterIPs").Index(i), ip)
		}
	}
	if none {
		const when = "for headless services"
		if spec.LoadBalancerIP != "" {
			ignored("loadBalancerIP", when)
		}
		if len(spec.ExternalIPs) > 0 {
			ignored("externalIPs", when)
		}
		if spec.SessionAffinity != corev1.ServiceAffinityNone {
			ignored("SessionAffinity", when)
		}
	}
	for i, ip := range spec.ExternalIPs {
		meta.WarnIP(&w, at.Dot("externalIPs").Index(i), ip)
	}
	external := spec.Type == corev1.ServiceTypeExternalName
	if len(spec.ExternalIPs) > 0 && !none && !external {
		w.Add("spec.externalIPs is deprecated and may no longer be implemented in some clusters")
	}
	if spec.LoadBalancerIP != "" {
		meta.WarnIP(&w, at.Dot("loadBalancerIP"), spec.LoadBalancerIP)
	}
	for i, r := range spec.LoadBalancerSourceRanges {
		meta.WarnCIDR(&w, at.Dot("loadBalancerSourceRanges").Index(i), r)
	}
	if external && len(spec.ExternalIPs) > 0 {
		ignored("externalIPs", `when spec.type is "ExternalName"`)
	}
	if !external && spec.ExternalName != "" {
		ignored("externalName", `when spec.type is not "ExternalName"`)
	}
	if meta.Deref(spec.TrafficDistribution, "") == corev1.ServiceTrafficDistributionPreferClose {
		w.Add(`spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"`)
	}
	return w
}
