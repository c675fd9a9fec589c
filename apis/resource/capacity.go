package resource

import (
	"fmt"
	"strconv"

	resourcev1 "k8s.io/api/resource/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"

	"github.com/knarr-dev/knarr/apis/check"
)

const maxOptions = 10 // as upstream; a range says more

// policy checks how much of a capacity may be asked for: one of some amounts,
// or an amount in a range.
func policy(at check.At, all apiresource.Quantity, p *resourcev1.CapacityRequestPolicy) {
	what := ""
	switch options, within := len(p.ValidValues) > 0, p.ValidRange != nil; {
	case options && within:
		at.Forbidden(`exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time`)
		return
	case options:
		what = "validValues"
	case within:
		what = "validRange"
	default:
		return
	}
	switch {
	case p.Default == nil:
		at.Dot("default").Required("required when " + what + " is defined")
	case p.ValidRange != nil:
		amountRange(at.Dot(what), all, *p.Default, p.ValidRange)
	default:
		options(at.Dot(what), all, *p.Default, p.ValidValues)
	}
}

func options(at check.At, all, normal apiresource.Quantity, amounts []apiresource.Quantity) {
	for i := 1; i < len(amounts); i++ {
		if amounts[i-1].Cmp(amounts[i]) > 0 {
			at.Index(i).Invalid(amounts[i].String(), "values must be sorted in ascending order")
		}
	}
	found := false
	set(at, amounts, maxOptions,
		func(q *apiresource.Quantity) string { return strconv.FormatInt(q.Value(), 10) },
		func(at check.At, q *apiresource.Quantity) {
			if q.Cmp(all) > 0 {
				at.Invalid(q.String(), "option is larger than capacity value: "+all.String())
			}
			found = found || q.Cmp(normal) == 0
		})
	if !found {
		at.Invalid(normal.String(), "default value is not valid according to the requestPolicy")
	}
}

func amountRange(at check.At, all, normal apiresource.Quantity, r *resourcev1.CapacityRequestPolicyRange) {
	least, most := at.Dot("min"), at.Dot("max")
	if r.Min == nil {
		least.Required("required when validRange is defined")
		return
	}
	if r.Min.Cmp(all) > 0 {
		least.Invalid(r.Min.String(), "min is larger than capacity value: "+all.String())
	}
	if normal.Cmp(*r.Min) < 0 {
		least.Invalid(normal.String(), "default is less than min: "+r.Min.String())
	}
	if r.Max != nil {
		if r.Min.Cmp(*r.Max) > 0 {
			most.Invalid(r.Min.String(), "min is larger than max: "+r.Max.String())
		}
		if r.Max.Cmp(all) > 0 {
			most.Invalid(r.Max.String(), "max is larger than capacity value: "+all.String())
		}
		if normal.Cmp(*r.Max) > 0 {
			most.Invalid(normal.String(), "default is more than max: "+r.Max.String())
		}
	}
	if r.Step == nil {
		return
	}
	step, one := at.Dot("step"), r.Min.DeepCopy()
	if one.Add(*r.Step); one.Cmp(all) > 0 {
		step.Invalid(r.Step.String(), fmt.Sprintf("one step %s is larger than capacity value: %s", one.String(), all.String()))
	}
	onStep(step, normal, r)
	if r.Max != nil {
		onStep(step, *r.Max, r)
	}
}

// onStep demands that an amount is some steps above the least. Upstream falls
// over a step of nothing.
func onStep(at check.At, q apiresource.Quantity, r *resourcev1.CapacityRequestPolicyRange) {
	if n := r.Step.Value(); n == 0 || (q.Value()-r.Min.Value())%n != 0 {
		at.Invalid(q.String(), fmt.Sprintf("value is not a multiple of a given step (%s) from (%s)", r.Step.String(), r.Min.String()))
	}
}
