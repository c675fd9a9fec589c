package resource

import (
	"fmt"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

// sliceDevice checks a device, which says itself from which nodes it can be
// reached where each does. Taints that were there before are not looked at.
func sliceDevice(at check.At, d, old *resourcev1.Device, each bool) {
	at.Dot("name").Label(d.Name)
	if n, most := len(d.Attributes)+len(d.Capacity), resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice; n > most {
		at.Invalid(n, fmt.Sprintf("the total number of attributes and capacities must not exceed %d", most))
	}
	if n, most := values(d), resourcev1.ResourceSliceMaxAttributeValuesPerDevice; n > most {
		at.Invalid(n, fmt.Sprintf("the total number of attribute values must not exceed %d", most))
	}
	keyed(at.Dot("attributes"), d.Attributes, maxKey, qualifiedName, attribute)
	shared := meta.Deref(d.AllowMultipleAllocations, false)
	keyed(at.Dot("capacity"), d.Capacity, maxKey, qualifiedName, func(at check.At, c resourcev1.DeviceCapacity) {
		switch {
		case c.RequestPolicy == nil:
		case shared:
			policy(at.Dot("requestPolicy"), c.Value, c.RequestPolicy)
		default:
			at.Dot("requestPolicy").Forbidden("allowMultipleAllocations must be true")
		}
	})
	if old == nil || !equality.Semantic.DeepEqual(d.Taints, old.Taints) {
		list(at.Dot("taints"), d.Taints, resourcev1.DeviceTaintsMaxLength, taint)
	}
	set(at.Dot("consumesCounters"), d.ConsumesCounters, resourcev1.ResourceSliceMaxDeviceCounterConsumptionsPerDevice,
		func(c *resourcev1.DeviceCounterConsumption) string { return c.CounterSet },
		func(at check.At, c *resourcev1.DeviceCounterConsumption) {
			counters(at, "counterSet", c.CounterSet, c.Counters, resourcev1.ResourceSliceMaxCountersPerDeviceCounterConsumption)
		})
	if each {
		deviceReach(at, d)
	} else if d.NodeName != nil || d.NodeSelector != nil || d.AllNodes != nil {
		at.Invalid(nil, "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec")
	}
	bindings(at, d.BindingConditions, d.BindingFailureConditions)
	mappings(at.Dot("nodeAllocatableResourceMappings"), d)
}

func deviceReach(at check.At, d *resourcev1.Device) {
	var ways []string
	if d.NodeName != nil {
		if name := at.Dot("nodeName"); *d.NodeName == "" {
			name.Invalid("", "must not be empty")
		} else {
			ways = append(ways, "`nodeName`")
			meta.Name(name, *d.NodeName)
		}
	}
	if d.NodeSelector != nil {
		ways = append(ways, "`nodeSelector`")
		meta.NodeSelector(at.Dot("nodeSelector"), d.NodeSelector, false)
	}
	ways = flag(at, "allNodes", d.AllNodes, ways)
	const one = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec"
	only(at, ways, one, one)
}

// values is how many values the attributes have, each of a list counted.
func values(d *resourcev1.Device) (n int) {
	for _, a := range d.Attributes {
		n += max(1, len(a.BoolValues)+len(a.IntValues)+len(a.StringValues)+len(a.VersionValues))
	}
	return n
}

// attribute checks what is told of a device: one value, or one list of them.
func attribute(at check.At, a resourcev1.DeviceAttribute) {
	n := 0
	one := func(set bool, check func()) {
		if set {
			n++
			check()
		}
	}
	one(a.BoolValue != nil, func() {})
	one(a.IntValue != nil, func() {})
	one(a.StringValue != nil, func() { text(at.Dot("string"), *a.StringValue) })
	one(a.VersionValue != nil, func() { versionText(at.Dot("version"), *a.VersionValue) })
	one(a.BoolValues != nil, func() { nonempty(at.Dot("bools"), a.BoolValues) })
	one(a.IntValues != nil, func() { nonempty(at.Dot("ints"), a.IntValues) })
	one(a.StringValues != nil, func() {
		nonempty(at.Dot("strings"), a.StringValues)
		for i, v := range a.StringValues {
			text(at.Dot("strings").Index(i), v)
		}
	})
	one(a.VersionValues != nil, func() {
		nonempty(at.Dot("versions"), a.VersionValues)
		for i, v := range a.VersionValues {
			versionText(at.Dot("versions").Index(i), v)
		}
	})
	const detail = "exactly one value must be specified"
	switch n {
	case 0:
		at.Invalid("", detail)
	case 1:
	default:
		at.Invalid(check.Bare(a), detail)
	}
}

// nonempty demands that a list has something in it.
func nonempty[T any](at check.At, list []T) {
	if len(list) == 0 {
		at.Invalid(list, "must not be empty if specified")
	}
}

func text(at check.At, s string) {
	if len(s) > resourcev1.DeviceAttributeMaxValueLength {
		at.TooLong(resourcev1.DeviceAttributeMaxValueLength)
	}
}

func versionText(at check.At, s string) {
	if !version.MatchString(s) {
		at.Invalid(s, "must be a string compatible with semver.org spec 2.0.0")
	}
	text(at, s)
}

func taint(at check.At, t *resourcev1.DeviceTaint) {
	meta.LabelName(at.Dot("key"), t.Key)
	labelValue(at.Dot("value"), t.Value)
	if at.Dot("effect").Present(string(t.Effect)) {
		effect(at.Dot("effect"), t.Effect)
	}
}

// mappings checks how much of the node's own resources a device takes.
func mappings(at check.At, d *resourcev1.Device) {
	for name, m := range check.Sorted(d.NodeAllocatableResourceMappings) {
		at := at.Key(string(name))
		if !meta.Native(name) {
			at.Invalid(name, "must be a node allocatable resource name")
		}
		if m.AllocationMultiplier == nil && m.CapacityKey == nil {
			at.Invalid("", "at least one of allocationMultiplier or capacityKey must be set")
			continue
		}
		if q := m.AllocationMultiplier; q != nil && q.Sign() <= 0 {
			at.Dot("allocationMultiplier").Invalid(q.String(), "must be positive")
		}
		if m.CapacityKey == nil {
			continue
		}
		if key := at.Dot("capacityKey"); *m.CapacityKey == "" {
			key.Invalid("", "capacityKey must not be an empty string")
		} else if _, known := d.Capacity[*m.CapacityKey]; !known {
			key.NotFound(*m.CapacityKey)
		}
	}
}
