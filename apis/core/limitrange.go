package core

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

var limitRanges = apis.Define(apis.Resource[*corev1.LimitRange]{
	Plural:   "limitranges",
	Short:    []string{"limits"},
	Default:  defaultLimitRange,
	Validate: validateLimitRange,
	Lifetime: apis.Lifetime[*corev1.LimitRange]{UpsertsOnUpdate: true},
})

// defaultLimitRange gives containers as much as they may have where it does
// not say how much.
func defaultLimitRange(l *corev1.LimitRange) {
	add := func(into *corev1.ResourceList, from corev1.ResourceList) {
		if *into == nil {
			*into = corev1.ResourceList{}
		}
		for name, q := range from {
			if _, has := (*into)[name]; !has {
				(*into)[name] = q
			}
		}
	}
	for i := range l.Spec.Limits {
		item := &l.Spec.Limits[i]
		if item.Type == corev1.LimitTypeContainer {
			add(&item.Default, item.Max)
			add(&item.DefaultRequest, item.Default)
			add(&item.DefaultRequest, item.Min)
		}
		for _, list := range []corev1.ResourceList{item.Max, item.Min, item.Default, item.DefaultRequest, item.MaxLimitRequestRatio} {
			meta.RoundUp(list)
		}
	}
}

func validateLimitRange(l, _ *corev1.LimitRange) field.ErrorList {
	at := check.New()
	types := check.Set[corev1.LimitType]{}
	for i := range l.Spec.Limits {
		at, item := at.Dot("spec.limits").Index(i), &l.Spec.Limits[i]
		limitType(at.Dot("type"), item.Type)
		if types.Twice(item.Type) {
			at.Dot("type").Duplicate(item.Type)
		}
		limitNames(at, item)
		all := map[corev1.ResourceName]bool{}
		for _, list := range []corev1.ResourceList{item.Max, item.Min, item.Default, item.DefaultRequest, item.MaxLimitRequestRatio} {
			for name := range list {
				all[name] = true
			}
		}
		for _, name := range slices.Sorted(maps.Keys(all)) {
			limitOrder(at, item, name)
		}
	}
	return at.Errors()
}

func limitType(at check.At, t corev1.LimitType) {
	wrong := utilvalidation.IsQualifiedName(string(t))
	at.Wrong(t, wrong)
	known := t == corev1.LimitTypePod || t == corev1.LimitTypeContainer || t == corev1.LimitTypePersistentVolumeClaim
	if len(wrong) == 0 && !strings.Contains(string(t), "/") && !known {
		at.Invalid(t, "must be a standard limit type or fully qualified")
	}
}

// limitNames checks which resources are limited.
func limitNames(at check.At, item *corev1.LimitRangeItem) {
	list := func(name string, l corev1.ResourceList) {
		for r := range check.Sorted(l) {
			if item.Type == corev1.LimitTypePod || item.Type == corev1.LimitTypeContainer {
				meta.ContainerResource(at.Dot(name).Key(string(r)), r)
			} else {
				meta.ResourceName(at.Dot(name).Key(string(r)), r)
			}
		}
	}
	list("max", item.Max)
	list("min", item.Min)
	if item.Type == corev1.LimitTypePod {
		const detail = "may not be specified when `type` is 'Pod'"
		if len(item.Default) > 0 {
			at.Dot("default").Forbidden(detail)
		}
		if len(item.DefaultRequest) > 0 {
			at.Dot("defaultRequest").Forbidden(detail)
		}
	} else {
		list("default", item.Default)
		list("defaultRequest", item.DefaultRequest)
	}
	if item.Type == corev1.LimitTypePersistentVolumeClaim {
		_, low := item.Min[corev1.ResourceStorage]
		if _, high := item.Max[corev1.ResourceStorage]; !low && !high {
			at.Dot("limits").Required("either minimum or maximum storage value is required, but neither was provided")
		}
	}
	list("maxLimitRequestRatio", item.MaxLimitRequestRatio)
}

// limitOrder demands min <= default request <= default <= max of one resource.
func limitOrder(at check.At, item *corev1.LimitRangeItem, name corev1.ResourceName) {
	type bound struct {
		resource.Quantity
		text string
		set  bool
	}
	get := func(list corev1.ResourceList, text string) bound {
		q, ok := list[name]
		return bound{q, text, ok}
	}
	low, high := get(item.Min, "min"), get(item.Max, "max")
	request, limit := get(item.DefaultRequest, "default request"), get(item.Default, "default")
	limitText := limit
	limitText.text = "default limit"
	if item.Type == corev1.LimitTypePod {
		request.set, limit.set, limitText.set = false, false, false
	}
	for _, order := range []struct {
		less, more bound
		field      string
		shown      resource.Quantity
	}{
		{low, high, "min", low.Quantity},
		{low, request, "defaultRequest", request.Quantity},
		{request, high, "defaultRequest", request.Quantity},
		{request, limitText, "defaultRequest", request.Quantity},
		{low, limit, "default", low.Quantity},
		{limit, high, "default", high.Quantity},
	} {
		if order.less.set && order.more.set && order.less.Cmp(order.more.Quantity) > 0 {
			at.Dot(order.field).Key(string(name)).Invalid(order.shown, fmt.Sprintf("%s value %s is greater than %s value %s",
				order.less.text, order.less.String(), order.more.text, order.more.String()))
		}
	}
	if ratio, ok := item.MaxLimitRequestRatio[name]; ok {
		limitRatio(at.Dot("maxLimitRequestRatio").Key(string(name)), ratio, low.Quantity, high.Quantity, low.set && high.set)
	}
	if !meta.Overcommits(name) && limit.set && request.set && limit.Cmp(request.Quantity) != 0 {
		at.Dot("defaultRequest").Key(string(name)).Invalid(request.Quantity,
			fmt.Sprintf("default value %s must equal to defaultRequest value %s in %s", limit.String(), request.String(), name))
	}
}

func limitRatio(at check.At, ratio, low, high resource.Quantity, bounded bool) {
	if ratio.Cmp(resource.MustParse("1")) < 0 {
		at.Invalid(ratio, fmt.Sprintf("ratio %s is less than 1", ratio.String()))
	}
	if !bounded {
		return
	}
	// By thousandths, unless that is too much for an integer.
	value, least, most := float64(ratio.Value()), low.Value(), high.Value()
	if ratio.Value() < resource.MaxMilliValue && least < resource.MaxMilliValue && most < resource.MaxMilliValue {
		value, least, most = float64(ratio.MilliValue())/1000, low.MilliValue(), high.MilliValue()
	}
	if limit := float64(most) / float64(least); value > limit {
		at.Invalid(ratio, fmt.Sprintf("ratio %s is greater than max/min = %f", ratio.String(), limit))
	}
}
