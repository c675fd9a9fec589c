// Package endpoints keeps the Endpoints of services with a selector, which
// clients from before EndpointSlices still read.
package endpoints

import (
	"cmp"
	"maps"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-dev/knarr/ctrl"
)

// What this package keeps is deprecated, and will be served for ever.
type (
	object = corev1.Endpoints      //nolint:staticcheck // see above
	subset = corev1.EndpointSubset //nolint:staticcheck // see above
)

// capacity is the most addresses in one object, which has to be sent whole
// for every change of one of them.
const capacity = 1000

const (
	managedBy = "endpoints.kubernetes.io/managed-by"
	manager   = "endpoint-controller"
)

// Controller is the endpoints controller.
var Controller = ctrl.Controller[*corev1.Service, input]{
	Name:    "endpoints-controller",
	Account: "endpoint-controller",
	Source:  "endpoint-controller",
	Workers: 5,
	Reads: []ctrl.Read{
		ctrl.Watch(ctrl.WakeServices),
		ctrl.Watch(func(_ ctrl.World, old, ep *object) []ctrl.Key {
			if ep != nil {
				return nil // only a deletion is somebody else's
			}
			return []ctrl.Key{ctrl.KeyOf(old)}
		}),
	},
	Writes: []ctrl.Write{ctrl.May(&object{}, ctrl.Create, ctrl.Update)},
	Gather: gather,
	Decide: decide,
}.Erase()

type input struct {
	svc  *corev1.Service
	have *object // nil where there are none
	pods []*corev1.Pod
	memo any
	now  time.Time
}

func gather(w ctrl.World, svc *corev1.Service) input {
	in := input{svc: svc, have: ctrl.Get[*object](w, svc.Namespace, svc.Name), memo: w.Memo, now: w.Now}
	picks := ctrl.ServiceSelector(svc)
	for _, p := range ctrl.In[*corev1.Pod](w, svc.Namespace) {
		if picks.Matches(labels.Set(p.Labels)) {
			in.pods = append(in.pods, p)
		}
	}
	return in
}

func decide(in input) ctrl.Plan {
	if in.svc.Spec.Type == corev1.ServiceTypeExternalName || in.svc.Spec.Selector == nil || in.svc.DeletionTimestamp != nil {
		return ctrl.Plan{}
	}
	since, next := ctrl.Since(in.memo, in.svc, in.pods)
	want := &object{ObjectMeta: metav1.ObjectMeta{Namespace: in.svc.Namespace, Name: in.svc.Name}}
	if in.have != nil {
		want = in.have.DeepCopy()
	}
	want.Labels, want.Subsets = labelsFor(in.svc), in.subsets()
	if !truncate(want.Subsets) {
		delete(want.Annotations, corev1.EndpointsOverCapacity)
	} else {
		metav1.SetMetaDataAnnotation(&want.ObjectMeta, corev1.EndpointsOverCapacity, "truncated")
	}
	if in.have != nil && same(in.have, want) {
		return ctrl.Plan{Memo: next}
	}
	ctrl.Stamp(want, since)
	a := ctrl.Action{Verb: ctrl.Create, Obj: want}
	reason := "FailedToCreateEndpoint: Failed to create endpoint for service %s/%s: %v"
	if in.have != nil {
		a.Verb, reason = ctrl.Update, "FailedToUpdateEndpoint: Failed to update endpoint %s/%s: %v"
	}
	a.Else = func(err error) []ctrl.Action {
		return []ctrl.Action{ctrl.Complain(want, reason, in.svc.Namespace, in.svc.Name, err)}
	}
	return next.Paced([]ctrl.Action{a}, in.memo, in.now)
}

func labelsFor(svc *corev1.Service) map[string]string {
	out := maps.Clone(svc.Labels)
	if out == nil {
		out = map[string]string{}
	}
	delete(out, corev1.IsHeadlessService)
	if svc.Spec.ClusterIP == corev1.ClusterIPNone || svc.Spec.ClusterIP == "" {
		out[corev1.IsHeadlessService] = ""
	}
	out[managedBy] = manager
	return out
}

// subsets are the pods that have the same ports in common, each.
func (in input) subsets() []subset {
	by := map[string]*subset{}
	for _, p := range in.pods {
		ports, ok := in.ports(p)
		addr := in.address(p)
		if !ok || addr == nil {
			continue
		}
		key := portsKey(ports)
		if by[key] == nil {
			by[key] = &subset{Ports: ports}
		}
		if in.svc.Spec.PublishNotReadyAddresses || ctrl.Ready(p) {
			by[key].Addresses = append(by[key].Addresses, *addr)
		} else {
			by[key].NotReadyAddresses = append(by[key].NotReadyAddresses, *addr)
		}
	}
	var out []subset
	for _, key := range slices.Sorted(maps.Keys(by)) {
		out = append(out, *by[key])
	}
	return sorted(out)
}

// ports are the service's ports as they are on p. Without any on p it is left
// out, but for a headless service, which need not have ports.
func (in input) ports(p *corev1.Pod) (ports []corev1.EndpointPort, ok bool) {
	for _, sp := range in.svc.Spec.Ports {
		if n, ok := ctrl.TargetPort(sp, p); ok {
			ports = append(ports, corev1.EndpointPort{Name: sp.Name, Port: n, Protocol: sp.Protocol, AppProtocol: sp.AppProtocol})
		}
	}
	headless := in.svc.Spec.ClusterIP == corev1.ClusterIPNone
	return ports, len(ports) > 0 || headless && len(in.svc.Spec.Ports) == 0
}

// address is that of p in the service's first family, nil where p has none or
// is not to be found.
func (in input) address(p *corev1.Pod) *corev1.EndpointAddress {
	if !ctrl.Publishable(p) || p.DeletionTimestamp != nil && !in.svc.Spec.PublishNotReadyAddresses {
		return nil
	}
	six := len(in.svc.Spec.IPFamilies) > 0 && in.svc.Spec.IPFamilies[0] == corev1.IPv6Protocol
	for _, ip := range p.Status.PodIPs {
		a, err := netip.ParseAddr(ip.IP)
		if err != nil || a.Is6() != six {
			continue
		}
		addr := &corev1.EndpointAddress{
			IP: a.String(), TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID},
		}
		if p.Spec.NodeName != "" {
			addr.NodeName = new(p.Spec.NodeName)
		}
		if p.Spec.Hostname != "" && p.Spec.Subdomain == in.svc.Name {
			addr.Hostname = p.Spec.Hostname
		}
		return addr
	}
	return nil
}

func portsKey(ports []corev1.EndpointPort) string {
	texts := make([]string, len(ports))
	for i, p := range ports {
		texts[i] = string(p.Protocol) + ":" + strconv.Itoa(int(p.Port)) + "/" + p.Name
	}
	slices.Sort(texts)
	return strings.Join(texts, " ")
}

// truncate cuts the subsets to capacity, the addresses that are not ready
// first and in proportion to the size of each, and reports whether it had to.
func truncate(subsets []subset) bool {
	ready, waiting := 0, 0
	for _, s := range subsets {
		ready, waiting = ready+len(s.Addresses), waiting+len(s.NotReadyAddresses)
	}
	if ready+waiting <= capacity {
		return false
	}
	room, of := capacity-ready, waiting
	if ready > capacity {
		room, of = capacity, ready
	}
	left := room
	for i := range subsets {
		list := &subsets[i].NotReadyAddresses
		if ready > capacity {
			*list, list = nil, &subsets[i].Addresses
		}
		n := min(left, len(*list), int(math.Ceil(float64(len(*list))/float64(of)*float64(room))))
		*list, left = (*list)[:n], left-n
	}
	return true
}

// same reports whether b says nothing that a does not. The server keeps the
// lists in an order of its own.
func same(a, b *object) bool {
	return maps.Equal(a.Labels, b.Labels) && reflect.DeepEqual(sorted(a.Subsets), b.Subsets) &&
		a.Annotations[corev1.EndpointsOverCapacity] == b.Annotations[corev1.EndpointsOverCapacity]
}

// sorted is a copy of subsets in an order that depends on nothing else.
func sorted(subsets []subset) []subset {
	var out []subset
	for _, s := range subsets {
		s.Addresses, s.NotReadyAddresses = slices.Clone(s.Addresses), slices.Clone(s.NotReadyAddresses)
		s.Ports = slices.Clone(s.Ports)
		for _, list := range [][]corev1.EndpointAddress{s.Addresses, s.NotReadyAddresses} {
			slices.SortFunc(list, func(a, b corev1.EndpointAddress) int {
				return cmp.Or(cmp.Compare(a.IP, b.IP), cmp.Compare(a.Hostname, b.Hostname))
			})
		}
		slices.SortFunc(s.Ports, func(a, b corev1.EndpointPort) int {
			return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
		})
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b subset) int { return cmp.Compare(portsKey(a.Ports), portsKey(b.Ports)) })
	return out
}
