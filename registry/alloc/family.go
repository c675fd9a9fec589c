package alloc

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func needsAddress(svc *corev1.Service) bool { return svc.Spec.Type != corev1.ServiceTypeExternalName }

func headless(svc *corev1.Service) bool { return svc.Spec.ClusterIP == corev1.ClusterIPNone }

// addressesOf are the cluster addresses that a service has, none of nil.
func addressesOf(svc *corev1.Service) (ips []netip.Addr) {
	if svc == nil || !needsAddress(svc) {
		return nil
	}
	for _, text := range svc.Spec.ClusterIPs {
		if ip, err := netip.ParseAddr(text); err == nil {
			ips = append(ips, ip)
		}
	}
	return ips
}

// coherent reports whether what a service says of its addresses can be meant.
// Where not, the kind's validation says why.
func coherent(svc *corev1.Service) bool {
	spec := &svc.Spec
	if !needsAddress(svc) {
		return true
	}
	if len(spec.ClusterIPs) > 2 || len(spec.IPFamilies) > 2 || len(spec.IPFamilies) == 2 && spec.IPFamilies[0] == spec.IPFamilies[1] {
		return false
	}
	for _, f := range spec.IPFamilies {
		if f != corev1.IPv4Protocol && f != corev1.IPv6Protocol {
			return false
		}
	}
	if len(spec.ClusterIPs) == 0 {
		return spec.ClusterIP == ""
	}
	if spec.ClusterIP != spec.ClusterIPs[0] {
		return false
	}
	if headless(svc) {
		return len(spec.ClusterIPs) == 1
	}
	var seen []corev1.IPFamily
	for i, text := range spec.ClusterIPs {
		ip, err := netip.ParseAddr(text)
		if err != nil || slices.Contains(seen, familyOf(ip)) || i < len(spec.IPFamilies) && spec.IPFamilies[i] != familyOf(ip) {
			return false
		}
		seen = append(seen, familyOf(ip))
	}
	return true
}

// changed reports whether a client wants other addresses than the service
// has. Validation does not allow it.
func changed(svc, was *corev1.Service) bool {
	if was == nil || !needsAddress(svc) || !needsAddress(was) {
		return false
	}
	for i, ip := range was.Spec.ClusterIPs {
		if i < len(svc.Spec.ClusterIPs) && svc.Spec.ClusterIPs[i] != ip {
			return true
		}
	}
	return false
}

// settleFamilies decides of which families a coherent service's addresses
// are to be, in a cluster that has the given ones, the default first.
func settleFamilies(svc, was *corev1.Service, have []corev1.IPFamily) (errs field.ErrorList) {
	if !needsAddress(svc) || prefersAsBefore(svc, was) {
		return nil
	}
	spec := &svc.Spec
	unselected := headless(svc) && len(spec.Selector) == 0
	if spec.IPFamilyPolicy == nil {
		switch {
		case was != nil && was.Spec.IPFamilyPolicy != nil:
			spec.IPFamilyPolicy = new(*was.Spec.IPFamilyPolicy)
		case unselected:
			spec.IPFamilyPolicy = new(corev1.IPFamilyPolicyRequireDualStack)
		default:
			spec.IPFamilyPolicy = new(corev1.IPFamilyPolicySingleStack)
		}
	}
	errs = append(errs, reduce(svc, was)...)
	if errs = append(errs, infer(svc, have)...); len(errs) > 0 {
		return errs
	}
	single := *spec.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack
	if !unselected {
		errs = configured(svc, have)
	}
	if len(errs) > 0 {
		return errs
	}
	if len(spec.IPFamilies) == 0 {
		spec.IPFamilies = []corev1.IPFamily{have[0]}
	}
	// Nobody knows what addresses come to stand behind a service that selects
	// nothing, so it may have both families whatever the cluster has.
	if !single && len(spec.IPFamilies) == 1 && (unselected || len(have) == 2) {
		spec.IPFamilies = append(spec.IPFamilies, other(spec.IPFamilies[0]))
	}
	return nil
}

func other(f corev1.IPFamily) corev1.IPFamily {
	if f == corev1.IPv4Protocol {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

// prefersAsBefore reports whether a service that prefers two families is to
// stay as it is, though the cluster may have more or fewer than it had.
func prefersAsBefore(svc, was *corev1.Service) bool {
	prefers := func(s *corev1.Service) bool {
		return s.Spec.IPFamilyPolicy == nil || *s.Spec.IPFamilyPolicy == corev1.IPFamilyPolicyPreferDualStack
	}
	return was != nil && svc.Spec.IPFamilyPolicy != nil && was.Spec.Type == svc.Spec.Type && prefers(svc) && prefers(was) &&
		slices.Equal(svc.Spec.ClusterIPs, was.Spec.ClusterIPs) && slices.Equal(svc.Spec.IPFamilies, was.Spec.IPFamilies)
}

// reduce makes a service have only one family if that is what its policy
// now says, and tells of what does not agree with the policy.
func reduce(svc, was *corev1.Service) (errs field.ErrorList) {
	spec := &svc.Spec
	policy := field.NewPath("spec", "ipFamilyPolicy")
	wrong := func(text string) { errs = append(errs, field.Invalid(policy, spec.IPFamilyPolicy, text)) }
	if *spec.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack {
		if was != nil && len(spec.ClusterIPs) > 1 && slices.Equal(spec.ClusterIPs, was.Spec.ClusterIPs) {
			spec.ClusterIPs = spec.ClusterIPs[:1]
		}
		if was != nil && len(spec.IPFamilies) > 1 && slices.Equal(spec.IPFamilies, was.Spec.IPFamilies) {
			spec.IPFamilies = spec.IPFamilies[:1]
		}
		if len(spec.ClusterIPs) == 2 {
			wrong("must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified")
		}
		if len(spec.IPFamilies) == 2 {
			wrong("must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified")
		}
		return errs
	}
	if was != nil && len(spec.ClusterIPs) > 0 && len(spec.ClusterIPs) < len(was.Spec.ClusterIPs) {
		wrong("must be 'SingleStack' to release the secondary cluster IP")
	}
	if was != nil && len(spec.IPFamilies) > 0 && len(spec.IPFamilies) < len(was.Spec.IPFamilies) {
		wrong("must be 'SingleStack' to release the secondary IP family")
	}
	return errs
}

// infer adds the families of the addresses that the client has chosen.
func infer(svc *corev1.Service, have []corev1.IPFamily) (errs field.ErrorList) {
	spec := &svc.Spec
	if headless(svc) {
		return nil
	}
	for i, text := range spec.ClusterIPs {
		ip, err := netip.ParseAddr(text)
		if err != nil || i < len(spec.IPFamilies) {
			continue
		}
		if family := familyOf(ip); slices.Contains(have, family) {
			spec.IPFamilies = append(spec.IPFamilies, family)
		} else {
			errs = append(errs, field.Invalid(field.NewPath("spec", "clusterIPs").Index(i), spec.ClusterIPs, string(family)+" is not configured on this cluster"))
		}
	}
	return errs
}

// configured checks that the cluster has the families that are asked for.
func configured(svc *corev1.Service, have []corev1.IPFamily) (errs field.ErrorList) {
	spec := &svc.Spec
	if *spec.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack && len(have) < 2 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilyPolicy"), spec.IPFamilyPolicy, "this cluster is not configured for dual-stack services"))
	}
	for i, f := range spec.IPFamilies {
		if !slices.Contains(have, f) {
			errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilies").Index(i), f, "not configured on this cluster"))
		}
	}
	return errs
}
