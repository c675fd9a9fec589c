package networking

import (
	"cmp"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

var networkPolicies = apis.Define(apis.Resource[*networkingv1.NetworkPolicy]{
	Plural: "networkpolicies",
	Short:  []string{"netpol"},

	Default:  defaultNetworkPolicy,
	Validate: validateNetworkPolicy,
	Warn:     warnNetworkPolicy,
	Spec:     func(p *networkingv1.NetworkPolicy) any { return &p.Spec },

	Columns: []apis.Column[*networkingv1.NetworkPolicy]{
		{Name: "Pod-Selector", Cell: func(p *networkingv1.NetworkPolicy, _ time.Time) any {
			return metav1.FormatLabelSelector(&p.Spec.PodSelector)
		}},
	},
})

func defaultNetworkPolicy(p *networkingv1.NetworkPolicy) {
	s := &p.Spec
	if len(s.PolicyTypes) == 0 {
		s.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(s.Egress) > 0 {
			s.PolicyTypes = append(s.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
	eachWay(check.At{}, s, func(_ check.At, ports []networkingv1.NetworkPolicyPort, _ []networkingv1.NetworkPolicyPeer, _ string) {
		for i := range ports {
			ports[i].Protocol = cmp.Or(ports[i].Protocol, new(corev1.ProtocolTCP))
		}
	})
}

// eachWay goes through what is let in and out: the ports and peers of each
// rule, and what the field of its peers is called.
func eachWay(at check.At, s *networkingv1.NetworkPolicySpec, rule func(at check.At, ports []networkingv1.NetworkPolicyPort, peers []networkingv1.NetworkPolicyPeer, name string)) {
	for i, r := range s.Ingress {
		rule(at.Dot("ingress").Index(i), r.Ports, r.From, "from")
	}
	for i, r := range s.Egress {
		rule(at.Dot("egress").Index(i), r.Ports, r.To, "to")
	}
}

// eachBlock goes through the ranges of addresses that a policy names.
func eachBlock(at check.At, s *networkingv1.NetworkPolicySpec, block func(at check.At, b *networkingv1.IPBlock)) {
	eachWay(at, s, func(at check.At, _ []networkingv1.NetworkPolicyPort, peers []networkingv1.NetworkPolicyPeer, name string) {
		for i, p := range peers {
			if p.IPBlock != nil {
				block(at.Dot(name).Index(i).Dot("ipBlock"), p.IPBlock)
			}
		}
	})
}

func validateNetworkPolicy(p, old *networkingv1.NetworkPolicy) field.ErrorList {
	root, s := check.New(), &p.Spec
	at, lenient := root.Dot("spec"), false
	var had []string
	if old != nil {
		lenient = meta.Odd(&old.Spec.PodSelector)
		eachBlock(at, &old.Spec, func(_ check.At, b *networkingv1.IPBlock) {
			had = append(append(had, b.CIDR), b.Except...)
		})
	}
	meta.Selector(at.Dot("podSelector"), &s.PodSelector, lenient)
	eachWay(at, s, func(at check.At, ports []networkingv1.NetworkPolicyPort, peers []networkingv1.NetworkPolicyPeer, name string) {
		for i := range ports {
			policyPort(at.Dot("ports").Index(i), &ports[i])
		}
		for i := range peers {
			peer(at.Dot(name).Index(i), &peers[i], lenient, had)
		}
	})
	if types := at.Dot("policyTypes"); len(s.PolicyTypes) > 2 {
		types.Invalid(s.PolicyTypes, "may not specify more than two policyTypes")
		return root.Errors()
	}
	for i, t := range s.PolicyTypes {
		check.Listed(at.Dot("policyTypes").Index(i), t, networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress)
	}
	return root.Errors()
}

func policyPort(at check.At, p *networkingv1.NetworkPolicyPort) {
	if p.Protocol != nil {
		check.Listed(at.Dot("protocol"), *p.Protocol, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
	}
	port, end := at.Dot("port"), at.Dot("endPort")
	switch {
	case p.Port == nil:
		if p.EndPort != nil {
			end.Invalid(*p.EndPort, "may not be specified when `port` is not specified")
		}
	case p.Port.Type == intstr.Int:
		port.Wrong(p.Port.IntVal, utilvalidation.IsValidPortNum(p.Port.IntValue()))
		if p.EndPort == nil {
			return
		}
		if *p.EndPort < p.Port.IntVal {
			end.Invalid(p.Port.IntVal, "must be greater than or equal to `port`") // as upstream: the value is the port's
		}
		end.Wrong(*p.EndPort, utilvalidation.IsValidPortNum(int(*p.EndPort)))
	default:
		if p.EndPort != nil {
			end.Invalid(*p.EndPort, "may not be specified when `port` is non-numeric")
		}
		port.Wrong(p.Port.StrVal, utilvalidation.IsValidPortName(p.Port.StrVal))
	}
}

func peer(at check.At, p *networkingv1.NetworkPolicyPeer, lenient bool, had []string) {
	meta.Selector(at.Dot("podSelector"), p.PodSelector, lenient)
	meta.Selector(at.Dot("namespaceSelector"), p.NamespaceSelector, lenient)
	if p.IPBlock != nil {
		ipBlock(at.Dot("ipBlock"), p.IPBlock, had)
	}
	switch selects := p.PodSelector != nil || p.NamespaceSelector != nil; {
	case selects && p.IPBlock != nil:
		at.Forbidden("may not specify both ipBlock and another peer")
	case !selects && p.IPBlock == nil:
		at.Required("must specify a peer")
	}
}

func ipBlock(at check.At, b *networkingv1.IPBlock, had []string) {
	if !at.Dot("cidr").Present(b.CIDR) {
		return
	}
	meta.CIDR(at.Dot("cidr"), b.CIDR, had...)
	_, all, err := netutils.ParseCIDRSloppy(b.CIDR)
	if err != nil {
		return
	}
	bits, _ := all.Mask.Size()
	for i, e := range b.Except {
		at := at.Dot("except").Index(i)
		meta.CIDR(at, e, had...)
		_, part, err := netutils.ParseCIDRSloppy(e)
		if err != nil {
			continue
		}
		if more, _ := part.Mask.Size(); !all.Contains(part.IP) || bits >= more {
			at.Invalid(e, "must be a strict subset of `cidr`")
		}
	}
}

func warnNetworkPolicy(p, _ *networkingv1.NetworkPolicy) []string {
	var w check.Warnings
	eachBlock(check.At{}.Dot("spec"), &p.Spec, func(at check.At, b *networkingv1.IPBlock) {
		meta.WarnCIDR(&w, at.Dot("cidr"), b.CIDR)
		for i, e := range b.Except {
			meta.WarnCIDR(&w, at.Dot("except").Index(i), e)
		}
	})
	return w
}
