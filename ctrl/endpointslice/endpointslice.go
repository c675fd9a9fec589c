// Package endpointslice keeps the EndpointSlices of services: from the pods
// that a service selects, and, by Mirroring, from the Endpoints that somebody
// wrote for a service without a selector.
package endpointslice

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	endpointsliceutil "k8s.io/endpointslice/util"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/ctrl"
)

// manager is whose slices these are: others' are left alone.
const manager = "endpointslice-controller.k8s.io"

// perSlice is the most endpoints in a slice: small enough that one pod's
// change does not make every proxy fetch a long list.
const perSlice = 100

// byService is by the service that a slice says it is of, and its manager.
var byService = &ctrl.Index{Name: "slices of a service", Of: func(o apis.Object) []string {
	return []string{sliceKey(o.GetNamespace(), o.GetLabels()[discoveryv1.LabelServiceName], o.GetLabels()[discoveryv1.LabelManagedBy])}
}}

func sliceKey(ns, service, manager string) string { return ns + "/" + service + " " + manager }

// Controller is the endpoint slice controller.
var Controller = ctrl.Controller[*corev1.Service, input]{
	Name:    "endpointslice-controller",
	Source:  "endpoint-slice-controller",
	Workers: 5,
	Reads: []ctrl.Read{
		ctrl.Watch(ctrl.WakeServices, ctrl.ByNode),
		ctrl.Watch(wakeForNode),
		ctrl.Watch(wakeFor(manager), byService),
	},
	Writes: []ctrl.Write{ctrl.May(&discoveryv1.EndpointSlice{}, ctrl.Create, ctrl.Update, ctrl.Delete)},
	Gather: gather,
	Decide: decide,
}.Erase()

type input struct {
	svc   *corev1.Service
	pods  []*corev1.Pod
	have  []*discoveryv1.EndpointSlice
	nodes map[string]*corev1.Node // of the pods; all where hints need them
	memo  any
	now   time.Time
}

func gather(w ctrl.World, svc *corev1.Service) input {
	in := input{svc: svc, nodes: map[string]*corev1.Node{}, memo: w.Memo, now: w.Now}
	if svc.Spec.Type == corev1.ServiceTypeExternalName || svc.Spec.Selector == nil {
		return input{}
	}
	for _, s := range ctrl.Find[*discoveryv1.EndpointSlice](w, byService, sliceKey(svc.Namespace, svc.Name, manager)) {
		if s.DeletionTimestamp == nil {
			in.have = append(in.have, s)
		}
	}
	picks := labels.SelectorFromSet(svc.Spec.Selector)
	for _, p := range ctrl.In[*corev1.Pod](w, svc.Namespace) {
		if !picks.Matches(labels.Set(p.Labels)) {
			continue
		}
		in.pods = append(in.pods, p)
		if n := ctrl.Get[*corev1.Node](w, "", p.Spec.NodeName); n != nil {
			in.nodes[n.Name] = n
		}
	}
	if auto(svc) {
		for _, n := range ctrl.All[*corev1.Node](w) {
			in.nodes[n.Name] = n
		}
	}
	return in
}

func decide(in input) ctrl.Plan {
	if in.svc == nil {
		return ctrl.Plan{}
	}
	since, next := ctrl.Since(in.memo, in.svc, in.pods)
	failed := func(err error) []ctrl.Action {
		const text = "FailedToUpdateEndpointSlices: Error updating Endpoint Slices for Service %s/%s: %v"
		return []ctrl.Action{ctrl.Complain(in.svc, text, in.svc.Namespace, in.svc.Name, err)}
	}
	var do []ctrl.Action
	var stale []*discoveryv1.EndpointSlice // of a family that the service has no more, or of a namesake before it
	for _, s := range in.have {
		if !slices.Contains(families(in.svc), s.AddressType) || !ownedBy(s, in.svc.UID) {
			stale = append(stale, s)
		}
	}
	for _, family := range families(in.svc) {
		c := in.arrange(family)
		events := in.hint(&c, family)
		for _, s := range slices.Concat(c.create, c.update) {
			ctrl.Stamp(s, since)
		}
		do = append(append(do, c.actions(in.svc.DeletionTimestamp != nil, failed)...), events...)
	}
	do = append(do, (&changes{remove: stale}).actions(false, failed)...)
	return next.Paced(do, in.memo, in.now)
}

// arrange puts the endpoints of one family into slices. A service without
// any has one empty slice, to show that it was seen.
func (in input) arrange(family discoveryv1.AddressType) changes {
	gs := groups{}
	for _, p := range in.pods {
		if !ctrl.Publishable(p) || !in.onNode(p) {
			continue
		}
		e := in.endpoint(p, family)
		if len(e.Addresses) == 0 {
			continue
		}
		ports := portsOf(in.svc, p)
		g := gs.of(portsKey(ports, family), func() *discoveryv1.EndpointSlice { return in.blank(ports, family) })
		g.want = append(g.want, e)
	}
	for _, s := range in.have {
		if s.AddressType == family && ownedBy(s, in.svc.UID) {
			g := gs.of(portsKey(s.Ports, family), func() *discoveryv1.EndpointSlice { return in.blank(s.Ports, family) })
			g.have = append(g.have, s)
		}
	}
	c := gs.fit(perSlice)
	if len(c.create)+len(c.update)+len(c.same) == 0 {
		c.hold(in.blank(nil, family))
	}
	return c
}

// onNode reports whether the node of p is known. A pod whose node is gone is
// left out, but for a service that publishes whatever there is.
func (in input) onNode(p *corev1.Pod) bool {
	return in.nodes[p.Spec.NodeName] != nil || in.svc.Spec.PublishNotReadyAddresses
}

func (in input) endpoint(p *corev1.Pod, family discoveryv1.AddressType) discoveryv1.Endpoint {
	serving, terminating := ctrl.Ready(p), p.DeletionTimestamp != nil
	e := discoveryv1.Endpoint{
		Addresses: addresses(p, family),
		Conditions: discoveryv1.EndpointConditions{
			Ready:   new(in.svc.Spec.PublishNotReadyAddresses || serving && !terminating),
			Serving: &serving, Terminating: &terminating,
		},
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID},
	}
	if p.Spec.NodeName != "" {
		e.NodeName = new(p.Spec.NodeName)
	}
	if n := in.nodes[p.Spec.NodeName]; n != nil && n.Labels[corev1.LabelTopologyZone] != "" {
		e.Zone = new(n.Labels[corev1.LabelTopologyZone])
	}
	if p.Spec.Hostname != "" && p.Spec.Subdomain == in.svc.Name {
		e.Hostname = new(p.Spec.Hostname)
	}
	return e
}

func addresses(p *corev1.Pod, family discoveryv1.AddressType) (out []string) {
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil && familyOf(a) == family {
			out = append(out, a.String())
		}
	}
	return out
}

func familyOf(a netip.Addr) discoveryv1.AddressType {
	if a.Is4() {
		return discoveryv1.AddressTypeIPv4
	}
	return discoveryv1.AddressTypeIPv6
}

func families(svc *corev1.Service) (out []discoveryv1.AddressType) {
	for _, f := range svc.Spec.IPFamilies {
		out = append(out, discoveryv1.AddressType(f)) // they are called the same
	}
	return out
}

// portsOf are the service's ports as they are on p: a named port may be
// another number on each pod, or not there at all.
func portsOf(svc *corev1.Service, p *corev1.Pod) []discoveryv1.EndpointPort {
	ports := []discoveryv1.EndpointPort{}
	for _, sp := range svc.Spec.Ports {
		if n, ok := ctrl.TargetPort(sp, p); ok {
			ports = append(ports, discoveryv1.EndpointPort{
				Name: new(sp.Name), Port: new(n), Protocol: new(sp.Protocol), AppProtocol: sp.AppProtocol,
			})
		}
	}
	return ports
}

func (in input) blank(ports []discoveryv1.EndpointPort, family discoveryv1.AddressType) *discoveryv1.EndpointSlice {
	ports = append([]discoveryv1.EndpointPort{}, ports...)
	endpointsliceutil.NewPortMapKey(ports) // sorts them by upstream's hash, so that a slice reads the same whoever wrote it
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: in.svc.Namespace, GenerateName: in.svc.Name + "-", Labels: sliceLabels(in.svc),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(in.svc, corev1.SchemeGroupVersion.WithKind("Service"))},
		},
		AddressType: family, Ports: ports, Endpoints: []discoveryv1.Endpoint{},
	}
}

// sliceLabels are the service's own, and ours in place of any that it has of
// those names.
func sliceLabels(svc *corev1.Service) map[string]string {
	out := maps.Clone(svc.Labels)
	if out == nil {
		out = map[string]string{}
	}
	delete(out, corev1.IsHeadlessService)
	if svc.Spec.ClusterIP == corev1.ClusterIPNone || svc.Spec.ClusterIP == "" {
		out[corev1.IsHeadlessService] = ""
	}
	out[discoveryv1.LabelServiceName] = svc.Name
	out[discoveryv1.LabelManagedBy] = manager
	return out
}

// wakeForNode wakes the services of a node's pods when it comes, goes or
// moves, and those with hints also when a node's part of the load changes.
func wakeForNode(w ctrl.World, old, n *corev1.Node) (keys []ctrl.Key) {
	moved := old == nil || n == nil || old.Labels[corev1.LabelTopologyZone] != n.Labels[corev1.LabelTopologyZone]
	if !moved && nodeReady(old) == nodeReady(n) {
		return nil
	}
	for _, svc := range ctrl.All[*corev1.Service](w) {
		if auto(svc) {
			keys = append(keys, ctrl.KeyOf(svc))
		}
	}
	if n == nil {
		n = old
	}
	if moved {
		for _, p := range ctrl.Find[*corev1.Pod](w, ctrl.ByNode, n.Name) {
			keys = append(keys, ctrl.Selecting(w, p, ctrl.ServiceSelector)...)
		}
	}
	return keys
}

func nodeReady(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// wakeFor wakes the service of a slice that manager made, or was taken for.
func wakeFor(manager string) func(ctrl.World, *discoveryv1.EndpointSlice, *discoveryv1.EndpointSlice) []ctrl.Key {
	return func(_ ctrl.World, old, s *discoveryv1.EndpointSlice) (keys []ctrl.Key) {
		for _, s := range []*discoveryv1.EndpointSlice{old, s} {
			if s != nil && s.Labels[discoveryv1.LabelManagedBy] == manager && s.Labels[discoveryv1.LabelServiceName] != "" {
				keys = append(keys, ctrl.Key{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]})
			}
		}
		return keys
	}
}
