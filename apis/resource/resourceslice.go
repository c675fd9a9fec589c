package resource

import (
	"fmt"
	"slices"
	"strings"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/volume"
)

var resourceSlices = apis.Define(apis.Resource[*resourcev1.ResourceSlice]{
	Plural: "resourceslices",
	Scope:  apis.Cluster,

	Default:  defaultResourceSlice,
	Prepare:  prepareResourceSlice,
	Validate: validateResourceSlice,
	Warn: func(s, _ *resourcev1.ResourceSlice) []string {
		if d := s.Spec.Driver; d != strings.ToLower(d) {
			return []string{fmt.Sprintf("spec.driver: driver names should be lowercase; %q contains uppercase characters", d)}
		}
		return nil
	},
	Spec: func(s *resourcev1.ResourceSlice) any { return &s.Spec },

	Fields: map[string]func(*resourcev1.ResourceSlice) string{
		resourcev1.ResourceSliceSelectorDriver:   func(s *resourcev1.ResourceSlice) string { return s.Spec.Driver },
		resourcev1.ResourceSliceSelectorNodeName: func(s *resourcev1.ResourceSlice) string { return meta.Deref(s.Spec.NodeName, "") },
	},
	Columns: []apis.Column[*resourcev1.ResourceSlice]{
		{Name: "Node", Cell: func(s *resourcev1.ResourceSlice, _ time.Time) any { return meta.Deref(s.Spec.NodeName, "") }},
		{Name: "Driver", Cell: func(s *resourcev1.ResourceSlice, _ time.Time) any { return s.Spec.Driver }},
		{Name: "Pool", Cell: func(s *resourcev1.ResourceSlice, _ time.Time) any { return s.Spec.Pool.Name }},
	},
	Lifetime: apis.Lifetime[*resourcev1.ResourceSlice]{ReturnsDeleted: true},
})

func defaultResourceSlice(s *resourcev1.ResourceSlice) {
	for i := range s.Spec.Devices {
		d := &s.Spec.Devices[i]
		for j := range d.Taints {
			if t := &d.Taints[j]; t.TimeAdded == nil {
				now := metav1.Now().Rfc3339Copy() // as upstream: a default is told no time
				t.TimeAdded = &now
			}
		}
		for name, m := range d.NodeAllocatableResourceMappings {
			if m.AllocationMultiplier == nil {
				m.AllocationMultiplier = apiresource.NewQuantity(1, apiresource.DecimalSI)
				d.NodeAllocatableResourceMappings[name] = m
			}
		}
	}
}

// prepareResourceSlice drops what is experimental, unless it was there.
func prepareResourceSlice(s, old *resourcev1.ResourceSlice) {
	had := func(what func(d *resourcev1.Device) bool) bool { return old != nil && some(&old.Spec, what) }
	lists, mappings := had(hasLists), had(func(d *resourcev1.Device) bool { return len(d.NodeAllocatableResourceMappings) > 0 })
	for i := range s.Spec.Devices {
		d := &s.Spec.Devices[i]
		if !mappings {
			d.NodeAllocatableResourceMappings = nil
		}
		for name, a := range d.Attributes {
			if !lists {
				a.BoolValues, a.IntValues, a.StringValues, a.VersionValues = nil, nil, nil, nil
				d.Attributes[name] = a
			}
		}
	}
}

// some reports whether something is so with one of the devices.
func some(s *resourcev1.ResourceSliceSpec, what func(d *resourcev1.Device) bool) bool {
	for i := range s.Devices {
		if what(&s.Devices[i]) {
			return true
		}
	}
	return false
}

func hasLists(d *resourcev1.Device) bool {
	for _, a := range d.Attributes {
		if a.BoolValues != nil || a.IntValues != nil || a.StringValues != nil || a.VersionValues != nil {
			return true
		}
	}
	return false
}

func validateResourceSlice(s, old *resourcev1.ResourceSlice) field.ErrorList {
	root, spec := check.New(), &s.Spec
	at := root.Dot("spec")
	volume.Driver(at.Dot("driver"), spec.Driver)
	pool(at.Dot("pool"), spec.Pool)
	var was resourcev1.ResourceSliceSpec
	if old != nil {
		was = old.Spec
		at.Dot("pool.name").Same(spec.Pool.Name, was.Pool.Name)
		at.Dot("driver").Same(spec.Driver, was.Driver)
		at.Dot("nodeName").Same(spec.NodeName, was.NodeName)
	}
	reach(at, spec)
	if spec.SharedCounters != nil && spec.Devices != nil {
		at.Invalid("", "only one of `sharedCounters` or `devices` is allowed")
	}
	most := resourcev1.ResourceSliceMaxDevices
	if some(spec, func(d *resourcev1.Device) bool {
		return len(d.Taints) > 0 || len(d.ConsumesCounters) > 0 || hasLists(d)
	}) {
		most = resourcev1.ResourceSliceMaxDevicesWithAdvancedFeatures
	}
	each := meta.Deref(spec.PerDeviceNodeSelection, false)
	set(at.Dot("devices"), spec.Devices, most, func(d *resourcev1.Device) string { return d.Name }, func(at check.At, d *resourcev1.Device) {
		i := slices.IndexFunc(was.Devices, func(o resourcev1.Device) bool { return o.Name == d.Name })
		var before *resourcev1.Device
		if i >= 0 {
			before = &was.Devices[i]
		}
		sliceDevice(at, d, before, each)
	})
	set(at.Dot("sharedCounters"), spec.SharedCounters, resourcev1.ResourceSliceMaxCounterSets,
		func(c *resourcev1.CounterSet) string { return c.Name },
		func(at check.At, c *resourcev1.CounterSet) {
			counters(at, "name", c.Name, c.Counters, resourcev1.ResourceSliceMaxCountersPerCounterSet)
		})
	return root.Errors()
}

func pool(at check.At, p resourcev1.ResourcePool) {
	poolName(at.Dot("name"), p.Name)
	if p.ResourceSliceCount <= 0 {
		at.Dot("resourceSliceCount").Invalid(p.ResourceSliceCount, "must be greater than zero")
	}
	if p.Generation < 0 {
		at.Dot("generation").Invalid(p.Generation, "must be greater than or equal to zero")
	}
}

// counters checks a set of counters, or how much of one a device takes.
func counters(at check.At, field, name string, all map[string]resourcev1.Counter, most int) {
	if at := at.Dot(field); at.Present(name) {
		at.Label(name)
	}
	switch at := at.Dot("counters"); {
	case len(all) == 0:
		at.Required("")
	case len(all) > most:
		at.TooMany(len(all), most)
	default:
		keyed(at, all, utilvalidation.DNS1123LabelMaxLength,
			func(at check.At, name string) { at.Label(name) }, func(check.At, resourcev1.Counter) {})
	}
}

const unsetOrTrue = "must be either unset or set to true"

// reach checks from which nodes the devices can be reached: in one of four ways.
func reach(at check.At, s *resourcev1.ResourceSliceSpec) {
	var ways []string
	if s.NodeName != nil {
		if name := at.Dot("nodeName"); *s.NodeName == "" {
			name.Invalid(*s.NodeName, "must be either unset or set to a non-empty string")
		} else {
			ways = append(ways, "`nodeName`")
			meta.Name(name, *s.NodeName)
		}
	}
	if s.NodeSelector != nil {
		ways = append(ways, "`nodeSelector`")
		meta.NodeSelector(at.Dot("nodeSelector"), s.NodeSelector, false)
		if terms := s.NodeSelector.NodeSelectorTerms; len(terms) != 1 { // so that selectors of several slices are easily merged
			at.Dot("nodeSelector.nodeSelectorTerms").Invalid(check.Bare(terms), "must have exactly one node selector term")
		}
	}
	ways = flag(at, "allNodes", s.AllNodes, ways)
	ways = flag(at, "perDeviceNodeSelection", s.PerDeviceNodeSelection, ways)
	const one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
	only(at, ways, one, one+", but multiple fields are set")
}

// flag demands that a flag is unset or true, and adds its name where it is.
func flag(at check.At, name string, set *bool, ways []string) []string {
	switch {
	case set == nil:
	case *set:
		return append(ways, "`"+name+"`")
	default:
		at.Dot(name).Invalid(false, unsetOrTrue)
	}
	return ways
}
