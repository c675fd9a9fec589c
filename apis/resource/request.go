package resource

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/volume"
)

func defaultClaim(s *resourcev1.ResourceClaimSpec) {
	mode := func(m *resourcev1.DeviceAllocationMode, count *int64) {
		if *m == "" {
			*m = resourcev1.DeviceAllocationModeExactCount
		}
		if *m == resourcev1.DeviceAllocationModeExactCount && *count == 0 {
			*count = 1
		}
	}
	for i := range s.Devices.Requests {
		r := &s.Devices.Requests[i]
		if e := r.Exactly; e != nil {
			mode(&e.AllocationMode, &e.Count)
			defaultTolerations(e.Tolerations)
		}
		for j := range r.FirstAvailable {
			f := &r.FirstAvailable[j]
			mode(&f.AllocationMode, &f.Count)
			defaultTolerations(f.Tolerations)
		}
	}
}

func defaultTolerations(all []resourcev1.DeviceToleration) {
	for i := range all {
		all[i].Operator = cmp.Or(all[i].Operator, resourcev1.DeviceTolerationOpEqual)
	}
}

// A claimed is what a claim asks for: the names of its requests, each with
// those of its alternatives.
type claimed map[string]map[string]bool

func requestsOf(d *resourcev1.DeviceClaim) claimed {
	all := claimed{}
	for _, r := range d.Requests {
		all[r.Name] = map[string]bool{}
		for _, f := range r.FirstAvailable {
			all[r.Name][f.Name] = true
		}
	}
	return all
}

// reference demands the name of a request, or of an alternative in one.
func (c claimed) reference(at check.At, name *string) {
	const detail = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
	request, alternative, deep := strings.Cut(*name, "/")
	if strings.Contains(alternative, "/") {
		at.Invalid(*name, detail)
		return
	}
	at.Label(request)
	if deep {
		at.Label(alternative)
	}
	if others, known := c[request]; !known || deep && !others[alternative] {
		at.Invalid(*name, detail)
	}
}

func (c claimed) references(at check.At, names []string) {
	set(at, names, resourcev1.DeviceRequestsMaxSize, itself, c.reference)
}

func claim(at check.At, s *resourcev1.ResourceClaimSpec) {
	d, at := &s.Devices, at.Dot("devices")
	names := requestsOf(d)
	set(at.Dot("requests"), d.Requests, resourcev1.DeviceRequestsMaxSize,
		func(r *resourcev1.DeviceRequest) string { return r.Name }, request)
	list(at.Dot("constraints"), d.Constraints, resourcev1.DeviceConstraintsMaxSize, func(at check.At, c *resourcev1.DeviceConstraint) {
		names.references(at.Dot("requests"), c.Requests)
		switch {
		case c.MatchAttribute != nil:
			fullyQualifiedName(at.Dot("matchAttribute"), *c.MatchAttribute)
		case c.DistinctAttribute != nil:
			fullyQualifiedName(at.Dot("distinctAttribute"), *c.DistinctAttribute)
		default:
			at.Required(`exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set`)
		}
	})
	list(at.Dot("config"), d.Config, resourcev1.DeviceConfigMaxSize, func(at check.At, c *resourcev1.DeviceClaimConfiguration) {
		names.references(at.Dot("requests"), c.Requests)
		configuration(at, &c.DeviceConfiguration, false)
	})
}

func request(at check.At, r *resourcev1.DeviceRequest) {
	at.Dot("name").Label(r.Name)
	const one = "exactly one of `exactly` or `firstAvailable` is required"
	switch exactly, first := r.Exactly, len(r.FirstAvailable) > 0; {
	case exactly == nil && !first:
		at.Required(one)
	case exactly != nil && first:
		at.Invalid(nil, one+", but multiple fields are set")
	case first:
		set(at.Dot("firstAvailable"), r.FirstAvailable, resourcev1.FirstAvailableDeviceRequestMaxSize,
			func(s *resourcev1.DeviceSubRequest) string { return s.Name },
			func(at check.At, s *resourcev1.DeviceSubRequest) {
				at.Dot("name").Label(s.Name)
				wanted{s.DeviceClassName, s.Selectors, s.AllocationMode, s.Count, s.Tolerations}.check(at)
			})
	default:
		wanted{exactly.DeviceClassName, exactly.Selectors, exactly.AllocationMode, exactly.Count, exactly.Tolerations}.check(at.Dot("exactly"))
	}
}

// A wanted is what requests and their alternatives have in common.
type wanted struct {
	class       string
	selectors   []resourcev1.DeviceSelector
	mode        resourcev1.DeviceAllocationMode
	count       int64
	tolerations []resourcev1.DeviceToleration
}

func (w wanted) check(at check.At) {
	if class := at.Dot("deviceClassName"); class.Present(w.class) {
		class.Subdomain(w.class)
	}
	selectors(at.Dot("selectors"), w.selectors, false)
	const all, some = resourcev1.DeviceAllocationModeAll, resourcev1.DeviceAllocationModeExactCount
	switch count := at.Dot("count"); {
	case w.mode == all && w.count != 0:
		count.Invalid(w.count, fmt.Sprintf("must not be specified when allocationMode is '%s'", w.mode))
	case w.mode == some && w.count <= 0:
		count.Invalid(w.count, "must be greater than zero")
	default:
		check.Listed(at.Dot("allocationMode"), w.mode, all, some)
	}
	for i, t := range w.tolerations {
		toleration(at.Dot("tolerations").Index(i), t)
	}
}

func toleration(at check.At, t resourcev1.DeviceToleration) {
	if t.Key != "" {
		meta.LabelName(at.Dot("key"), t.Key)
	}
	const equal, exists = resourcev1.DeviceTolerationOpEqual, resourcev1.DeviceTolerationOpExists
	if check.ListedChoice(at.Dot("operator"), t.Operator, equal, exists) {
		switch {
		case t.Operator == equal:
			labelValue(at.Dot("value"), t.Value)
		case t.Value != "":
			at.Dot("value").Invalid(t.Value, "must be empty for operator `Exists`")
		}
	}
	if t.Effect != "" {
		effect(at.Dot("effect"), t.Effect)
	}
}

// selectors checks expressions that select devices, stored telling that they
// were there before.
func selectors(at check.At, all []resourcev1.DeviceSelector, stored bool) {
	list(at, all, resourcev1.DeviceSelectorsMaxSize, func(at check.At, s *resourcev1.DeviceSelector) {
		if s.CEL == nil {
			at.Dot("cel").Required("")
			return
		}
		at = at.Dot("cel.expression")
		if len(s.CEL.Expression) > resourcev1.CELSelectorExpressionMaxLength {
			at.TooLong(resourcev1.CELSelectorExpressionMaxLength)
			return
		}
		expression(at, s.CEL.Expression, stored)
	})
}

// configuration checks what a driver is to be told. How much there may be is
// not asked of what was stored.
func configuration(at check.At, c *resourcev1.DeviceConfiguration, stored bool) {
	at = at.Dot("opaque")
	if c.Opaque == nil {
		at.Required("")
		return
	}
	volume.Driver(at.Dot("driver"), c.Opaque.Driver)
	most := resourcev1.OpaqueParametersMaxLength
	if stored {
		most = len(c.Opaque.Parameters.Raw)
	}
	object(at.Dot("parameters"), c.Opaque.Parameters, most)
}

// object demands a JSON object of no more than some bytes.
func object(at check.At, raw runtime.RawExtension, most int) {
	if len(raw.Raw) > most {
		at.TooLong(most)
		return
	}
	var v any
	if len(raw.Raw) > 0 {
		if err := json.Unmarshal(raw.Raw, &v); err != nil {
			at.Invalid("<value omitted>", "error parsing data as JSON: "+err.Error())
			return
		}
	}
	switch v.(type) {
	case nil:
		at.Required("")
	case map[string]any:
	default:
		at.Invalid("<value omitted>", "must be a valid JSON object")
	}
}
