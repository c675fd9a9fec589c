// Package quota tells how much of what is limited an object uses, and whether
// a quota is about it. It decides nothing and stores nothing: admission
// charges what is about to be, and a controller counts what there is.
package quota

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Ignored are kinds that quotas are not about.
var Ignored = []schema.GroupResource{{Resource: "events"}, {Group: "events.k8s.io", Resource: "events"}}

// A Meter measures the objects of one kind.
type Meter struct {
	Resource schema.GroupResource

	// Counts reports whether objects of the kind use what is called name.
	Counts func(name corev1.ResourceName) bool

	// Usage is what an object uses.
	Usage func(obj any, now time.Time) corev1.ResourceList

	// In reports whether an object is in a scope.
	In func(scope corev1.ScopedResourceSelectorRequirement, obj any) bool
}

// For returns the meter of a kind: one that counts its objects, and for a few
// kinds measures what is in them.
func For(gr schema.GroupResource) Meter {
	switch gr {
	case schema.GroupResource{Resource: "pods"}:
		return Meter{gr, countsPod, podUsage, podIn}
	case schema.GroupResource{Resource: "services"}:
		return Meter{gr, countsService, serviceUsage, nowhere}
	case schema.GroupResource{Resource: "persistentvolumeclaims"}:
		return Meter{gr, countsClaim, claimUsage, claimIn}
	case schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceclaims"}:
		return Meter{gr, countsDevices, deviceUsage, nowhere}
	}
	names := []corev1.ResourceName{Count(gr)}
	if gr.Group == "" && slices.Contains(named, gr.Resource) {
		names = append(names, corev1.ResourceName(gr.Resource))
	}
	return Meter{
		gr,
		func(name corev1.ResourceName) bool { return slices.Contains(names, name) },
		func(any, time.Time) corev1.ResourceList {
			used := corev1.ResourceList{}
			for _, name := range names {
				used[name] = Number(1)
			}
			return used
		},
		nowhere,
	}
}

// named are kinds whose objects are counted under the kind's own name too.
var named = []string{"configmaps", "resourcequotas", "replicationcontrollers", "secrets"}

// Count is the name under which the objects of a kind are counted.
func Count(gr schema.GroupResource) corev1.ResourceName {
	return corev1.ResourceName("count/" + gr.String())
}

func nowhere(corev1.ScopedResourceSelectorRequirement, any) bool { return false }

// Number is n, as a quantity.
func Number(n int) resource.Quantity { return *resource.NewQuantity(int64(n), resource.DecimalSI) }

// Of returns which of the resources that a quota bounds the meter counts.
func (m Meter) Of(hard corev1.ResourceList) (names []corev1.ResourceName) {
	for name := range hard {
		if m.Counts(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Matches reports whether a quota is about an object.
func (m Meter) Matches(q *corev1.ResourceQuota, obj any) bool {
	return len(m.Of(q.Status.Hard)) > 0 && m.Within(q, obj)
}

// Within reports whether an object is in all scopes of a quota.
func (m Meter) Within(q *corev1.ResourceQuota, obj any) bool {
	for _, s := range Scopes(q) {
		if !m.In(s, obj) {
			return false
		}
	}
	return true
}

// Scopes are those of a quota, in all of which an object must be.
func Scopes(q *corev1.ResourceQuota) (all []corev1.ScopedResourceSelectorRequirement) {
	for _, s := range q.Spec.Scopes {
		all = append(all, corev1.ScopedResourceSelectorRequirement{ScopeName: s, Operator: corev1.ScopeSelectorOpExists})
	}
	if q.Spec.ScopeSelector != nil {
		all = append(all, q.Spec.ScopeSelector.MatchExpressions...)
	}
	return all
}

// selects reports whether a scope that asks for values asks for one of those
// given.
func selects(s corev1.ScopedResourceSelectorRequirement, values ...string) bool {
	some := slices.ContainsFunc(values, func(v string) bool { return slices.Contains(s.Values, v) })
	switch s.Operator {
	case corev1.ScopeSelectorOpExists:
		return len(values) > 0
	case corev1.ScopeSelectorOpDoesNotExist:
		return len(values) == 0
	case corev1.ScopeSelectorOpIn:
		return some
	case corev1.ScopeSelectorOpNotIn:
		return len(values) == 0 || slices.ContainsFunc(values, func(v string) bool { return !slices.Contains(s.Values, v) })
	}
	return false
}

func countsService(name corev1.ResourceName) bool {
	switch name {
	case "count/services", corev1.ResourceServices, corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers:
		return true
	}
	return false
}

func serviceUsage(obj any, _ time.Time) corev1.ResourceList {
	s := obj.(*corev1.Service)
	used := corev1.ResourceList{
		"count/services": Number(1), corev1.ResourceServices: Number(1),
		corev1.ResourceServicesLoadBalancers: Number(0), corev1.ResourceServicesNodePorts: Number(0),
	}
	switch s.Spec.Type {
	case corev1.ServiceTypeNodePort:
		used[corev1.ResourceServicesNodePorts] = Number(len(s.Spec.Ports))
	case corev1.ServiceTypeLoadBalancer:
		used[corev1.ResourceServicesLoadBalancers] = Number(1)
		ports := len(s.Spec.Ports)
		if allocate := s.Spec.AllocateLoadBalancerNodePorts; allocate != nil && !*allocate {
			ports = 0
			for _, p := range s.Spec.Ports {
				if p.NodePort != 0 {
					ports++
				}
			}
		}
		used[corev1.ResourceServicesNodePorts] = Number(ports)
	}
	return used
}

// What is limited by class has a name that ends in this and what it is.
const (
	byStorageClass = ".storageclass.storage.k8s.io/"
	byDeviceClass  = ".deviceclass.resource.k8s.io/devices"
)

func countsClaim(name corev1.ResourceName) bool {
	switch name {
	case "count/persistentvolumeclaims", corev1.ResourcePersistentVolumeClaims, corev1.ResourceRequestsStorage:
		return true
	}
	return strings.HasSuffix(string(name), byStorageClass+string(corev1.ResourcePersistentVolumeClaims)) ||
		strings.HasSuffix(string(name), byStorageClass+string(corev1.ResourceRequestsStorage))
}

func claimUsage(obj any, _ time.Time) corev1.ResourceList {
	pvc := obj.(*corev1.PersistentVolumeClaim)
	used := corev1.ResourceList{"count/persistentvolumeclaims": Number(1), corev1.ResourcePersistentVolumeClaims: Number(1)}
	class := pvc.Annotations[corev1.BetaStorageClassAnnotation]
	if _, old := pvc.Annotations[corev1.BetaStorageClassAnnotation]; !old && pvc.Spec.StorageClassName != nil {
		class = *pvc.Spec.StorageClassName
	}
	size, sized := pvc.Spec.Resources.Requests[corev1.ResourceStorage]
	if allocated, ok := pvc.Status.AllocatedResources[corev1.ResourceStorage]; ok && sized && allocated.Cmp(size) > 0 {
		size = allocated // it is growing, or has failed to
	}
	if sized {
		size = size.DeepCopy()
		size.RoundUp(0)
		used[corev1.ResourceRequestsStorage] = size
	}
	if class != "" {
		used[corev1.ResourceName(class+byStorageClass)+corev1.ResourcePersistentVolumeClaims] = Number(1)
		if sized {
			used[corev1.ResourceName(class+byStorageClass)+corev1.ResourceRequestsStorage] = size
		}
	}
	return used
}

func claimIn(s corev1.ScopedResourceSelectorRequirement, obj any) bool {
	if s.ScopeName != corev1.ResourceQuotaScopeVolumeAttributesClass {
		return false
	}
	return selects(s, AttributesClasses(obj.(*corev1.PersistentVolumeClaim))...)
}

// AttributesClasses are the classes of attributes that a claim has or is to get.
func AttributesClasses(pvc *corev1.PersistentVolumeClaim) (names []string) {
	add := func(name *string) {
		if name != nil && *name != "" && !slices.Contains(names, *name) {
			names = append(names, *name)
		}
	}
	add(pvc.Spec.VolumeAttributesClassName)
	add(pvc.Status.CurrentVolumeAttributesClassName)
	if m := pvc.Status.ModifyVolumeStatus; m != nil {
		add(&m.TargetVolumeAttributesClassName)
	}
	slices.Sort(names)
	return names
}

func countsDevices(name corev1.ResourceName) bool {
	return name == "count/resourceclaims.resource.k8s.io" || strings.HasSuffix(string(name), byDeviceClass)
}

func deviceUsage(obj any, _ time.Time) corev1.ResourceList {
	claim := obj.(*resourcev1.ResourceClaim)
	used := corev1.ResourceList{"count/resourceclaims.resource.k8s.io": Number(1)}
	for i := range claim.Spec.Devices.Requests {
		// Of alternatives the one that needs most of a class counts.
		most := map[string]int64{}
		request := &claim.Spec.Devices.Requests[i]
		for _, sub := range request.FirstAvailable {
			most[sub.DeviceClassName] = max(most[sub.DeviceClassName], devices(sub.AllocationMode, sub.Count))
		}
		if e := request.Exactly; e != nil && len(request.FirstAvailable) == 0 {
			most[e.DeviceClassName] = devices(e.AllocationMode, e.Count)
		}
		for class, n := range most {
			name := corev1.ResourceName(class + byDeviceClass)
			sum := used[name]
			sum.Add(*resource.NewQuantity(n, resource.DecimalSI))
			used[name] = sum
		}
	}
	return used
}

func devices(mode resourcev1.DeviceAllocationMode, count int64) int64 {
	switch mode {
	case resourcev1.DeviceAllocationModeExactCount:
		return count
	case resourcev1.DeviceAllocationModeAll:
		return resourcev1.AllocationResultsMaxSize
	}
	return 0
}
