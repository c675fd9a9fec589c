package ctrl

import (
	"maps"
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// ServiceSelector picks the pods of svc; none where it says nothing of them.
func ServiceSelector(svc *corev1.Service) labels.Selector {
	if svc.Spec.Selector == nil {
		return labels.Nothing()
	}
	return labels.SelectorFromSet(svc.Spec.Selector)
}

// WakeServices is for a Watch of pods: it wakes the services of a pod that
// changed in a way that shows in an endpoint.
func WakeServices(w World, old, p *corev1.Pod) []Key {
	if old != nil && p != nil && !endpointDiffers(old, p) {
		return nil
	}
	var keys []Key
	if p != nil {
		keys = Selecting(w, p, ServiceSelector)
	}
	if old != nil && (p == nil || !maps.Equal(old.Labels, p.Labels)) {
		keys = append(keys, Selecting(w, old, ServiceSelector)...)
	}
	return keys
}

func endpointDiffers(old, p *corev1.Pod) bool {
	return !maps.Equal(old.Labels, p.Labels) || old.Spec.Hostname != p.Spec.Hostname || old.Spec.Subdomain != p.Spec.Subdomain ||
		(old.DeletionTimestamp == nil) != (p.DeletionTimestamp == nil) || Ready(old) != Ready(p) ||
		Finished(old) != Finished(p) || old.Spec.NodeName != p.Spec.NodeName ||
		!reflect.DeepEqual(old.Status.PodIPs, p.Status.PodIPs)
}

// Publishable reports whether p has an address that somebody may answer at.
func Publishable(p *corev1.Pod) bool {
	return !Finished(p) && (p.Status.PodIP != "" || len(p.Status.PodIPs) > 0)
}

// TargetPort is the number that a port of a service has on p, false where p
// has no port of the name that it asks for.
func TargetPort(port corev1.ServicePort, p *corev1.Pod) (int32, bool) {
	if port.TargetPort.Type == intstr.Int {
		return port.TargetPort.IntVal, true
	}
	named := func(cs []corev1.Container, counts func(*corev1.Container) bool) (int32, bool) {
		for i := range cs {
			for _, cp := range cs[i].Ports {
				if cp.Name == port.TargetPort.StrVal && cp.Protocol == port.Protocol && counts(&cs[i]) {
					return cp.ContainerPort, true
				}
			}
		}
		return 0, false
	}
	if n, ok := named(p.Spec.Containers, func(*corev1.Container) bool { return true }); ok {
		return n, true
	}
	return named(p.Spec.InitContainers, Sidecar)
}

// calm is the least time between two writes about the endpoints of a service:
// when many pods change at once, proxies need not hear of each by itself.
const calm = 100 * time.Millisecond

// A Pulse is the memo of a controller of endpoints: when the pods of a service
// last changed, as far as was seen, and when something was written.
type Pulse struct {
	pods  map[string]time.Time
	wrote time.Time
}

// Since is since when the endpoints of svc are not what they should be, for
// those who measure how long that takes: the first of the changes since the
// look that left memo. It is zero where none is known.
func Since(memo any, svc *corev1.Service, pods []*corev1.Pod) (since time.Time, next Pulse) {
	had, known := memo.(Pulse)
	next = Pulse{map[string]time.Time{}, had.wrote}
	for _, p := range pods {
		c := PodCondition(p, corev1.PodReady)
		if c == nil || c.LastTransitionTime.IsZero() {
			continue
		}
		at := c.LastTransitionTime.Time
		next.pods[p.Name] = at
		if at.After(had.pods[p.Name]) && (since.IsZero() || at.Before(since)) {
			since = at
		}
	}
	if !known {
		since = svc.CreationTimestamp.Time
	}
	return since, next
}

// Paced is the plan to do what follows from a look with that memo, or to do it
// a little later.
func (next Pulse) Paced(do []Action, memo any, now time.Time) Plan {
	if len(do) == 0 {
		return Plan{Memo: next}
	}
	if wait := calm - now.Sub(next.wrote); wait > 0 {
		return Plan{After: wait, Memo: memo}
	}
	next.wrote = now
	return Plan{Do: do, Memo: next}
}

// Stamp notes on obj, which is new or a copy, since when it was due.
func Stamp(obj metav1.Object, since time.Time) {
	notes := maps.Clone(obj.GetAnnotations())
	delete(notes, corev1.EndpointsLastChangeTriggerTime)
	if !since.IsZero() {
		if notes == nil {
			notes = map[string]string{}
		}
		notes[corev1.EndpointsLastChangeTriggerTime] = since.UTC().Format(time.RFC3339Nano)
	}
	obj.SetAnnotations(notes)
}
