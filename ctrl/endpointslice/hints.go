package endpointslice

import (
	"maps"
	"slices"
	"strings"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/endpointslice/topologycache"
	"k8s.io/endpointslice/trafficdist"

	"github.com/knarr-dev/knarr/ctrl"
)

// auto reports whether svc asks for hints by the zones' part of the load.
func auto(svc *corev1.Service) bool {
	mode, ok := svc.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]
	if !ok {
		mode = svc.Annotations[corev1.AnnotationTopologyMode]
	}
	return strings.EqualFold(mode, "auto")
}

// hint gives the endpoints in c the hints that the service asks for, which
// may change slices that were the same before, and tells where hints begin or end.
func (in input) hint(c *changes, family discoveryv1.AddressType) []ctrl.Action {
	if !auto(in.svc) {
		c.create, c.update, c.same = trafficdist.ReconcileHints(in.svc.Spec.TrafficDistribution, c.create, c.update, slices.Clone(c.same))
		return nil
	}
	key := in.svc.Namespace + "/" + in.svc.Name
	cache := topologycache.NewTopologyCache()
	nodes := make([]*corev1.Node, 0, len(in.nodes))
	for _, name := range slices.Sorted(maps.Keys(in.nodes)) {
		nodes = append(nodes, in.nodes[name].DeepCopy()) // it adds up their CPUs in place
	}
	cache.SetNodes(logr.Discard(), nodes)
	had := slices.ContainsFunc(in.have, hinted)
	if had {
		cache.SetHints(key, family, topologycache.EndpointZoneInfo{})
	}
	all := topologycache.SliceInfo{ServiceKey: key, AddressType: family, ToCreate: c.create, ToUpdate: c.update, Unchanged: c.same}
	var events []*topologycache.EventBuilder
	c.create, c.update, events = cache.AddHints(logr.Discard(), &all)
	c.same = slices.DeleteFunc(c.same, func(s *discoveryv1.EndpointSlice) bool {
		return slices.ContainsFunc(c.update, func(u *discoveryv1.EndpointSlice) bool { return u.Name == s.Name })
	})
	var do []ctrl.Action
	for _, e := range events {
		if e.EventType == corev1.EventTypeWarning && (had || len(c.create)+len(c.update) > 0) {
			do = append(do, ctrl.Complain(in.svc, "%s: %s", e.Reason, e.Message))
		} else if e.EventType == corev1.EventTypeNormal {
			do = append(do, ctrl.Tell(in.svc, "%s: %s", e.Reason, e.Message))
		}
	}
	return do
}

func hinted(s *discoveryv1.EndpointSlice) bool {
	return slices.ContainsFunc(s.Endpoints, func(e discoveryv1.Endpoint) bool { return e.Hints != nil })
}
