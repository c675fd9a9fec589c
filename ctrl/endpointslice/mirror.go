package endpointslice

import (
	"maps"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	endpointsliceutil "k8s.io/endpointslice/util"

	"github.com/knarr-dev/knarr/ctrl"
)

// handmade Endpoints are what clients write that know no slices.
type handmade = corev1.Endpoints //nolint:staticcheck // deprecated, and served for ever

const mirrorManager = "endpointslicemirroring-controller.k8s.io"

// perMirror is the most addresses of one subset that are mirrored, all in one slice.
const perMirror = 1000

// leaderKey is on Endpoints that are no more than a lock of old times.
const leaderKey = "control-plane.alpha.kubernetes.io/leader"

// Mirroring is the controller that writes slices for hand-made Endpoints.
var Mirroring = ctrl.Controller[*handmade, mirror]{
	Name:    "endpointslice-mirroring-controller",
	Account: "endpointslicemirroring-controller",
	Source:  "endpoint-slice-mirroring-controller",
	Workers: 5,
	Reads: []ctrl.Read{
		ctrl.Watch(wakeForService),
		ctrl.Watch(wakeFor(mirrorManager), byService),
	},
	Writes: []ctrl.Write{ctrl.May(&discoveryv1.EndpointSlice{}, ctrl.Create, ctrl.Update, ctrl.Delete)},
	Gather: gatherMirror,
	Decide: decideMirror,
}.Erase()

type mirror struct {
	ep   *handmade
	svc  *corev1.Service // nil where there is none of the name
	have []*discoveryv1.EndpointSlice
	told any // the revision of ep that events were written about
}

func gatherMirror(w ctrl.World, ep *handmade) mirror {
	return mirror{
		ep: ep, svc: ctrl.Get[*corev1.Service](w, ep.Namespace, ep.Name), told: w.Memo,
		have: ctrl.Find[*discoveryv1.EndpointSlice](w, byService, sliceKey(ep.Namespace, ep.Name, mirrorManager)),
	}
}

func decideMirror(in mirror) ctrl.Plan {
	_, lock := in.ep.Annotations[leaderKey]
	if in.svc == nil || in.svc.Spec.Selector != nil || lock || in.ep.Labels[discoveryv1.LabelSkipMirror] == "true" {
		return ctrl.Plan{Do: (&changes{remove: in.have}).actions(false, nil)}
	}
	gs := groups{}
	invalid, skipped := 0, 0
	for _, subset := range in.ep.Subsets {
		left := perMirror
		for i, list := range [][]corev1.EndpointAddress{subset.Addresses, subset.NotReadyAddresses} {
			for _, addr := range list {
				ip, err := netip.ParseAddr(addr.IP)
				switch {
				case left == 0:
					skipped++
				case err != nil:
					invalid++
				default:
					left--
					g := in.group(gs, subset.Ports, familyOf(ip))
					g.want = append(g.want, endpointFrom(addr, ip, i == 0))
				}
			}
		}
	}
	for _, s := range in.have {
		g := gs.of(portsKey(s.Ports, s.AddressType), func() *discoveryv1.EndpointSlice { return in.blank(s.Ports, s.AddressType) })
		g.have = append(g.have, s)
	}
	c := gs.fit(perMirror)
	plan := ctrl.Plan{Do: c.actions(in.ep.DeletionTimestamp != nil, nil), Memo: in.ep.ResourceVersion}
	if in.told != plan.Memo {
		plan.Do = append(plan.Do, in.report(invalid, skipped)...)
	}
	return plan
}

func (in mirror) report(invalid, skipped int) (do []ctrl.Action) {
	if invalid > 0 {
		do = append(do, ctrl.Complain(in.ep, "InvalidIPAddress: Skipped %d invalid IP addresses when mirroring to EndpointSlices", invalid))
	}
	if skipped > 0 {
		const text = "TooManyAddressesToMirror: A max of %d addresses can be mirrored to EndpointSlices per Endpoints subset. %d addresses were skipped"
		do = append(do, ctrl.Complain(in.ep, text, perMirror, skipped+invalid))
	}
	return do
}

func endpointFrom(addr corev1.EndpointAddress, ip netip.Addr, ready bool) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{
		Addresses: []string{ip.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		TargetRef: addr.TargetRef, NodeName: addr.NodeName,
	}
	if addr.Hostname != "" {
		e.Hostname = &addr.Hostname
	}
	return e
}

func (in mirror) group(gs groups, from []corev1.EndpointPort, family discoveryv1.AddressType) *group {
	ports := []discoveryv1.EndpointPort{}
	for _, p := range from {
		ports = append(ports, discoveryv1.EndpointPort{Name: new(p.Name), Port: new(p.Port), Protocol: new(p.Protocol), AppProtocol: p.AppProtocol})
	}
	return gs.of(portsKey(ports, family), func() *discoveryv1.EndpointSlice { return in.blank(ports, family) })
}

func (in mirror) blank(ports []discoveryv1.EndpointPort, family discoveryv1.AddressType) *discoveryv1.EndpointSlice {
	ports = append([]discoveryv1.EndpointPort{}, ports...)
	endpointsliceutil.NewPortMapKey(ports) // as in the other blank
	labels, annotations := copied(in.ep.Labels), copied(in.ep.Annotations)
	labels[discoveryv1.LabelServiceName] = in.ep.Name
	labels[discoveryv1.LabelManagedBy] = mirrorManager
	delete(annotations, corev1.EndpointsLastChangeTriggerTime)
	delete(annotations, corev1.LastAppliedConfigAnnotation)
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: in.ep.Namespace, GenerateName: in.ep.Name + "-", Labels: labels, Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(in.ep, corev1.SchemeGroupVersion.WithKind("Endpoints"))},
		},
		AddressType: family, Ports: ports, Endpoints: []discoveryv1.Endpoint{},
	}
}

func copied(m map[string]string) map[string]string {
	out := map[string]string{}
	maps.Copy(out, m)
	return out
}

// wakeForService wakes the Endpoints of a service that comes, goes, or gets or
// loses a selector.
func wakeForService(_ ctrl.World, old, svc *corev1.Service) []ctrl.Key {
	if old != nil && svc != nil && (old.Spec.Selector == nil) == (svc.Spec.Selector == nil) {
		return nil
	}
	if svc == nil {
		svc = old
	}
	return []ctrl.Key{ctrl.KeyOf(svc)}
}
