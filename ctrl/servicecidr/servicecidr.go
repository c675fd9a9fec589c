// Package servicecidr keeps a ServiceCIDR from going while a service has an
// address of it that no other range contains, and says when it is ready.
package servicecidr

import (
	"net/netip"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/ctrl"
)

const finalizer = "networking.k8s.io/service-cidr-finalizer"

// manager marks the addresses that API servers allocated.
const manager = "ipallocator.k8s.io"

// grace is how long after its deletion a range may still be allocated from,
// by an API server that has not noticed.
const grace = 10 * time.Second

// Controller is the service CIDR controller.
var Controller = ctrl.Controller[*networkingv1.ServiceCIDR, input]{
	Name:    "service-cidr-controller",
	Account: "service-cidrs-controller",
	Workers: 1,
	Reads: []ctrl.Read{
		ctrl.Watch(wakeForRange),
		ctrl.Watch(wakeForAddress),
	},
	Writes: []ctrl.Write{ctrl.May(&networkingv1.ServiceCIDR{}, ctrl.Patch)},
	Gather: gather,
	Decide: decide,
}.Erase()

type input struct {
	cidr   *networkingv1.ServiceCIDR
	others []*networkingv1.ServiceCIDR
	ips    []*networkingv1.IPAddress // only where cidr is being deleted
	now    time.Time
}

func gather(w ctrl.World, c *networkingv1.ServiceCIDR) input {
	in := input{cidr: c, now: w.Now}
	if c.DeletionTimestamp == nil {
		return in
	}
	in.ips = ctrl.All[*networkingv1.IPAddress](w)
	for _, o := range ctrl.All[*networkingv1.ServiceCIDR](w) {
		if o.Name != c.Name {
			in.others = append(in.others, o)
		}
	}
	return in
}

func decide(in input) ctrl.Plan {
	held := slices.Contains(in.cidr.Finalizers, finalizer)
	if in.cidr.DeletionTimestamp == nil {
		var do []ctrl.Action
		if !held {
			do = append(do, ctrl.AddFinalizer(in.cidr, finalizer))
		}
		return ctrl.Plan{Do: append(do, in.say(metav1.ConditionTrue, "", "Kubernetes Service CIDR is ready")...)}
	}
	if in.needed() {
		return ctrl.Plan{Do: in.say(metav1.ConditionFalse, networkingv1.ServiceCIDRReasonTerminating,
			"There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR")}
	}
	if wait := grace - in.now.Sub(in.cidr.DeletionTimestamp.Time); wait > 0 {
		return ctrl.Plan{After: wait}
	}
	if !held {
		return ctrl.Plan{}
	}
	return ctrl.Plan{Do: []ctrl.Action{ctrl.DropFinalizer(in.cidr, finalizer)}}
}

// say sets the condition Ready, by a patch: one to the finalizers may have
// made the object newer than it was seen.
func (in input) say(is metav1.ConditionStatus, reason, message string) []ctrl.Action {
	if had := meta.FindStatusCondition(in.cidr.Status.Conditions, networkingv1.ServiceCIDRConditionReady); had != nil &&
		had.Status == is && had.Reason == reason && had.Message == message {
		return nil
	}
	c := metav1.Condition{
		Type: networkingv1.ServiceCIDRConditionReady, Status: is, Reason: reason, Message: message,
		LastTransitionTime: metav1.NewTime(in.now.Truncate(time.Second)),
	}
	patch := map[string]any{"status": map[string]any{"conditions": []metav1.Condition{c}}}
	return []ctrl.Action{{Verb: ctrl.Patch, Obj: in.cidr, Sub: "status", Patch: ctrl.JSON(patch)}}
}

// needed reports whether an address would belong to no range any more.
func (in input) needed() bool {
	if !slices.ContainsFunc(prefixes(in.cidr), func(p netip.Prefix) bool { return !in.inOther(p) }) {
		return false
	}
	return slices.ContainsFunc(in.ips, func(ip *networkingv1.IPAddress) bool {
		a, ok := address(ip)
		return ok && holds(in.cidr, a) && !slices.ContainsFunc(in.others, func(o *networkingv1.ServiceCIDR) bool { return holds(o, a) })
	})
}

// inOther reports whether another range contains all of p.
func (in input) inOther(p netip.Prefix) bool {
	return slices.ContainsFunc(in.others, func(o *networkingv1.ServiceCIDR) bool {
		return slices.ContainsFunc(prefixes(o), func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) })
	})
}

func holds(c *networkingv1.ServiceCIDR, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes(c), func(p netip.Prefix) bool { return p.Contains(a) })
}

func prefixes(c *networkingv1.ServiceCIDR) (out []netip.Prefix) {
	for _, s := range c.Spec.CIDRs {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p)
		}
	}
	return out
}

func address(ip *networkingv1.IPAddress) (netip.Addr, bool) {
	a, err := netip.ParseAddr(ip.Name)
	return a, err == nil && ip.Labels[networkingv1.LabelManagedBy] == manager
}

// wakeForRange wakes the ranges that a new or gone one overlaps.
func wakeForRange(w ctrl.World, old, c *networkingv1.ServiceCIDR) (keys []ctrl.Key) {
	if c == nil {
		c = old
	} else if old != nil {
		return nil
	}
	for _, o := range ctrl.All[*networkingv1.ServiceCIDR](w) {
		for _, p := range prefixes(c) {
			if slices.ContainsFunc(prefixes(o), p.Overlaps) {
				keys = append(keys, ctrl.KeyOf(o))
				break
			}
		}
	}
	return keys
}

// wakeForAddress wakes the ranges that a new or gone address is in.
func wakeForAddress(w ctrl.World, old, ip *networkingv1.IPAddress) (keys []ctrl.Key) {
	if ip == nil {
		ip = old
	} else if old != nil {
		return nil
	}
	a, ok := address(ip)
	for _, c := range ctrl.All[*networkingv1.ServiceCIDR](w) {
		if ok && c.DeletionTimestamp != nil && holds(c, a) {
			keys = append(keys, ctrl.KeyOf(c))
		}
	}
	return keys
}
