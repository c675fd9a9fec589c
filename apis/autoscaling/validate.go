package autoscaling

import (
	"errors"
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

// How long, in seconds, changes may be looked back on and how long a policy
// may count.
const (
	maxWindow = 3600
	maxPeriod = 1800
)

func validateAutoscaler(a, old *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
	root, s := check.New(), &a.Spec
	at, least, target := root.Dot("spec"), int32(1), grouped
	switch same := old != nil && old.Spec.ScaleTargetRef.APIVersion == s.ScaleTargetRef.APIVersion && old.Spec.ScaleTargetRef.Kind == s.ScaleTargetRef.Kind; {
	case same:
		target = anything
	case s.ScaleTargetRef.Kind == "ReplicationController": // the one kind without a group that can be scaled
		target = parsed
	}
	if old != nil && meta.Deref(old.Spec.MinReplicas, 1) == 0 {
		least = 0
	}
	fewest := meta.Deref(s.MinReplicas, least)
	if fewest < least {
		at.Dot("minReplicas").Invalid(fewest, fmt.Sprintf("must be greater than or equal to %d", least))
	}
	switch most := at.Dot("maxReplicas"); {
	case s.MaxReplicas == 0:
		most.Required("must be set and greater than 0")
	case s.MaxReplicas < 0:
		most.Invalid(s.MaxReplicas, "must be greater than or equal to 1")
	}
	if s.MinReplicas != nil && s.MaxReplicas < fewest {
		at.Dot("maxReplicas").Invalid(s.MaxReplicas, "must be greater than or equal to `minReplicas`")
	}
	object(at.Dot("scaleTargetRef"), s.ScaleTargetRef, target)
	metrics(at.Dot("metrics"), s, described(old))
	if b := s.Behavior; b != nil {
		rules(at.Dot("behavior.scaleUp"), b.ScaleUp)
		rules(at.Dot("behavior.scaleDown"), b.ScaleDown)
	}
	return root.Errors()
}

// A version tells what is wrong with the apiVersion of something that an
// autoscaler looks at.
type version func(apiVersion string) error

func anything(string) error { return nil }

func parsed(apiVersion string) error {
	_, err := schema.ParseGroupVersion(apiVersion)
	return err
}

func grouped(apiVersion string) error {
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err == nil && gv.Group == "" {
		return errors.New("apiVersion must specify API group")
	}
	return err
}

// described is the rule for objects that metrics are of. Where one was stored
// that is refused today, all are let pass.
func described(old *autoscalingv2.HorizontalPodAutoscaler) version {
	if old == nil {
		return parsed
	}
	for _, m := range old.Spec.Metrics {
		if m.Type == autoscalingv2.ObjectMetricSourceType && m.Object != nil && parsed(m.Object.DescribedObject.APIVersion) != nil {
			return anything
		}
	}
	return parsed
}

func object(at check.At, o autoscalingv2.CrossVersionObjectReference, wrong version) {
	meta.Segment(at.Dot("kind"), o.Kind)
	meta.Segment(at.Dot("name"), o.Name)
	if err := wrong(o.APIVersion); err != nil {
		at.Dot("apiVersion").Invalid(o.APIVersion, err.Error())
	}
}

func metrics(at check.At, s *autoscalingv2.HorizontalPodAutoscalerSpec, rule version) {
	seen := false
	for i := range s.Metrics {
		m := &s.Metrics[i]
		metric(at.Index(i), m, rule)
		seen = seen || m.Type == autoscalingv2.ObjectMetricSourceType || m.Type == autoscalingv2.ExternalMetricSourceType
	}
	// Without pods there is nothing else to measure.
	if meta.Deref(s.MinReplicas, 1) == 0 && !seen {
		at.Forbidden("must specify at least one Object or External metric to support scaling to zero replicas")
	}
}

// metric checks the source of a metric, which is one of several. As upstream:
// of more than one the first is looked at.
func metric(at check.At, m *autoscalingv2.MetricSpec, rule version) {
	types := []autoscalingv2.MetricSourceType{
		autoscalingv2.ContainerResourceMetricSourceType, autoscalingv2.ExternalMetricSourceType, autoscalingv2.ObjectMetricSourceType,
		autoscalingv2.PodsMetricSourceType, autoscalingv2.ResourceMetricSourceType,
	}
	kind := at.Dot("type")
	if m.Type == "" {
		kind.Required("must specify a metric source type")
	}
	known := check.OneOf(kind, m.Type, types...)
	sources := []struct {
		name  string
		kind  autoscalingv2.MetricSourceType
		set   bool
		check func(at check.At)
	}{
		{"object", autoscalingv2.ObjectMetricSourceType, m.Object != nil, func(at check.At) { objectSource(at, m.Object, rule) }},
		{"external", autoscalingv2.ExternalMetricSourceType, m.External != nil, func(at check.At) { externalSource(at, m.External) }},
		{"pods", autoscalingv2.PodsMetricSourceType, m.Pods != nil, func(at check.At) { podsSource(at, m.Pods) }},
		{"resource", autoscalingv2.ResourceMetricSourceType, m.Resource != nil, func(at check.At) { resourceSource(at, m.Resource) }},
		{"containerResource", autoscalingv2.ContainerResourceMetricSourceType, m.ContainerResource != nil, func(at check.At) {
			containerSource(at, m.ContainerResource)
		}},
	}
	set := 0
	for _, s := range sources {
		if !s.set {
			continue
		}
		if set++; set == 1 {
			s.check(at.Dot(s.name))
		}
	}
	for _, s := range sources {
		if s.kind == m.Type && !s.set {
			at.Dot(s.name).Required("must populate information for the given metric source")
		}
	}
	if !known {
		check.OneOf(kind, m.Type, types...)
	}
	for _, s := range sources {
		if set > 1 && s.set && s.kind != m.Type {
			at.Dot(s.name).Forbidden("must populate the given metric source only")
		}
	}
}

func identifier(at check.At, m autoscalingv2.MetricIdentifier) {
	if m.Name == "" {
		at.Dot("name").Required("must specify a metric name")
		return
	}
	meta.Segment(at.Dot("name"), m.Name)
}

func target(at check.At, t autoscalingv2.MetricTarget) {
	if t.Type == "" {
		at.Dot("type").Required("must specify a metric target type")
	}
	switch t.Type {
	case autoscalingv2.UtilizationMetricType, autoscalingv2.ValueMetricType, autoscalingv2.AverageValueMetricType:
	default:
		at.Dot("type").Invalid(t.Type, "must be either Utilization, Value, or AverageValue")
	}
	positive(at.Dot("value"), t.Value)
	positive(at.Dot("averageValue"), t.AverageValue)
	if u := t.AverageUtilization; u != nil && *u < 1 {
		at.Dot("averageUtilization").Invalid(*u, "must be greater than 0")
	}
}

func positive(at check.At, q *resource.Quantity) {
	if q != nil && q.Sign() <= 0 {
		at.Invalid(q, "must be positive")
	}
}

func objectSource(at check.At, s *autoscalingv2.ObjectMetricSource, rule version) {
	object(at.Dot("describedObject"), s.DescribedObject, rule)
	identifier(at.Dot("metric"), s.Metric)
	target(at.Dot("target"), s.Target)
	if s.Target.Value == nil && s.Target.AverageValue == nil {
		at.Dot("target.averageValue").Required("must set either a target value or averageValue")
	}
}

func externalSource(at check.At, s *autoscalingv2.ExternalMetricSource) {
	identifier(at.Dot("metric"), s.Metric)
	target(at.Dot("target"), s.Target)
	switch one, other := s.Target.Value != nil, s.Target.AverageValue != nil; {
	case one && other:
		at.Dot("target.value").Forbidden("may not set both a target value for metric and a per-pod target")
	case !one && !other:
		at.Dot("target.averageValue").Required("must set either a target value for metric or a per-pod target")
	}
}

func podsSource(at check.At, s *autoscalingv2.PodsMetricSource) {
	identifier(at.Dot("metric"), s.Metric)
	target(at.Dot("target"), s.Target)
	if s.Target.AverageValue == nil {
		at.Dot("target.averageValue").Required("must specify a positive target averageValue")
	}
}

func resourceSource(at check.At, s *autoscalingv2.ResourceMetricSource) {
	if s.Name == "" {
		at.Dot("name").Required("must specify a resource name")
	}
	use(at.Dot("target"), s.Target)
}

func containerSource(at check.At, s *autoscalingv2.ContainerResourceMetricSource) {
	if s.Name == "" {
		at.Dot("name").Required("must specify a resource name")
	} else {
		meta.ContainerResource(at.Dot("name"), s.Name)
	}
	if s.Container == "" {
		at.Dot("container").Required("must specify a container")
	} else {
		at.Dot("container").Label(s.Container)
	}
	use(at.Dot("target"), s.Target)
}

// use checks how much of a resource is to be used, or what part of it.
func use(at check.At, t autoscalingv2.MetricTarget) {
	target(at, t)
	switch part, amount := t.AverageUtilization != nil, t.AverageValue != nil; {
	case part && amount:
		at.Dot("averageValue").Forbidden("may not set both a target raw value and a target utilization")
	case !part && !amount:
		at.Dot("averageUtilization").Required("must set either a target raw value or a target utilization")
	}
}

// rules checks how fast pods come or go.
func rules(at check.At, r *autoscalingv2.HPAScalingRules) {
	if r == nil {
		return
	}
	if window, at := meta.Deref(r.StabilizationWindowSeconds, 0), at.Dot("stabilizationWindowSeconds"); window < 0 {
		at.Invalid(window, "must be greater than or equal to zero")
	} else if window > maxWindow {
		at.Invalid(window, fmt.Sprintf("must be less than or equal to %d", maxWindow))
	}
	if r.SelectPolicy != nil {
		check.OneOf(at.Dot("selectPolicy"), *r.SelectPolicy,
			autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect, autoscalingv2.DisabledPolicySelect)
	}
	if len(r.Policies) == 0 {
		at.Dot("policies").Required("must specify at least one Policy")
	}
	for i, p := range r.Policies {
		at := at.Dot("policies").Index(i)
		check.OneOf(at.Dot("type"), p.Type, autoscalingv2.PodsScalingPolicy, autoscalingv2.PercentScalingPolicy)
		check.Positive(at.Dot("value"), p.Value)
		check.Positive(at.Dot("periodSeconds"), p.PeriodSeconds)
		if p.PeriodSeconds > maxPeriod {
			at.Dot("periodSeconds").Invalid(p.PeriodSeconds, fmt.Sprintf("must be less than or equal to %d", maxPeriod))
		}
	}
	if r.Tolerance != nil {
		meta.Quantity(at.Dot("tolerance"), "", *r.Tolerance)
	}
}

func validateAutoscalerStatus(a, _ *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
	root := check.New()
	at := root.Dot("status")
	check.NonNegative(at.Dot("currentReplicas"), a.Status.CurrentReplicas)
	check.NonNegative(at.Dot("desiredReplicas"), a.Status.DesiredReplicas)
	return root.Errors()
}
