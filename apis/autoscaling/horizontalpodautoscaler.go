package autoscaling

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var horizontalPodAutoscalers = apis.Define(apis.Resource[*autoscalingv2.HorizontalPodAutoscaler]{
	Plural:     "horizontalpodautoscalers",
	Short:      []string{"hpa"},
	Categories: []string{"all"},

	Default:  defaultAutoscaler,
	Prepare:  meta.KeepStatus[*autoscalingv2.HorizontalPodAutoscaler],
	Validate: validateAutoscaler,
	Subs:     []apis.Sub[*autoscalingv2.HorizontalPodAutoscaler]{meta.Status(validateAutoscalerStatus)},
	Views:    []apis.View{v1},

	Columns: []apis.Column[*autoscalingv2.HorizontalPodAutoscaler]{
		{Name: "Reference", Cell: func(a *autoscalingv2.HorizontalPodAutoscaler, _ time.Time) any {
			return a.Spec.ScaleTargetRef.Kind + "/" + a.Spec.ScaleTargetRef.Name
		}},
		{Name: "Targets", Cell: func(a *autoscalingv2.HorizontalPodAutoscaler, _ time.Time) any {
			return printMetrics(a.Spec.Metrics, a.Status.CurrentMetrics)
		}},
		{Name: "MinPods", Cell: func(a *autoscalingv2.HorizontalPodAutoscaler, _ time.Time) any {
			if a.Spec.MinReplicas == nil {
				return "<unset>"
			}
			return fmt.Sprint(*a.Spec.MinReplicas)
		}},
		{Name: "MaxPods", Cell: func(a *autoscalingv2.HorizontalPodAutoscaler, _ time.Time) any { return int64(a.Spec.MaxReplicas) }},
		{Name: "Replicas", Cell: func(a *autoscalingv2.HorizontalPodAutoscaler, _ time.Time) any {
			return int64(a.Status.CurrentReplicas)
		}},
	},
})

// defaultMetrics are those of an autoscaler that is told no others.
func defaultMetrics() []autoscalingv2.MetricSpec {
	return []autoscalingv2.MetricSpec{{
		Type: autoscalingv2.ResourceMetricSourceType,
		Resource: &autoscalingv2.ResourceMetricSource{
			Name:   corev1.ResourceCPU,
			Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: new(int32(80))},
		},
	}}
}

func defaultAutoscaler(a *autoscalingv2.HorizontalPodAutoscaler) {
	s := &a.Spec
	s.MinReplicas = cmp.Or(s.MinReplicas, new(int32(1)))
	if len(s.Metrics) == 0 {
		s.Metrics = defaultMetrics()
	}
	if s.Behavior == nil {
		return
	}
	const often = 15
	all := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: often}
	some := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: often}
	up, down := &s.Behavior.ScaleUp, &s.Behavior.ScaleDown
	defaultRules(up, some, all)
	defaultRules(down, all)
	// Down it waits as long as the controller is told to.
	(*up).StabilizationWindowSeconds = cmp.Or((*up).StabilizationWindowSeconds, new(int32))
}

func defaultRules(rules **autoscalingv2.HPAScalingRules, policies ...autoscalingv2.HPAScalingPolicy) {
	r := cmp.Or(*rules, &autoscalingv2.HPAScalingRules{})
	r.SelectPolicy = cmp.Or(r.SelectPolicy, new(autoscalingv2.MaxChangePolicySelect))
	if r.Policies == nil {
		r.Policies = policies
	}
	*rules = r
}

// printMetrics shows the first few metrics, each as it is and as it should be.
func printMetrics(specs []autoscalingv2.MetricSpec, statuses []autoscalingv2.MetricStatus) string {
	const few = 2
	all := make([]string, len(specs))
	for i := range specs {
		var now autoscalingv2.MetricStatus
		if i < len(statuses) {
			now = statuses[i]
		}
		all[i] = printMetric(&specs[i], &now)
	}
	text := strings.Join(all[:min(few, len(all))], ", ")
	if len(all) > few {
		text += fmt.Sprintf(" + %d more...", len(all)-few)
	}
	return meta.Or(text, "<none>")
}

func printMetric(m *autoscalingv2.MetricSpec, now *autoscalingv2.MetricStatus) string {
	var value *autoscalingv2.MetricValueStatus
	switch {
	case m.Type == autoscalingv2.ExternalMetricSourceType && m.External != nil:
		if now.External != nil {
			value = &now.External.Current
		}
		return printAmount(m.External.Target, value)
	case m.Type == autoscalingv2.ObjectMetricSourceType && m.Object != nil:
		if now.Object != nil {
			value = &now.Object.Current
		}
		return printAmount(m.Object.Target, value)
	case m.Type == autoscalingv2.PodsMetricSourceType && m.Pods != nil:
		is := "<unknown>"
		if now.Pods != nil {
			is = quantity(now.Pods.Current.AverageValue)
		}
		return is + "/" + quantity(m.Pods.Target.AverageValue)
	case m.Type == autoscalingv2.ResourceMetricSourceType && m.Resource != nil:
		if now.Resource != nil {
			value = &now.Resource.Current
		}
		return string(m.Resource.Name) + ": " + printUse(m.Resource.Target, value)
	case m.Type == autoscalingv2.ContainerResourceMetricSourceType && m.ContainerResource != nil:
		if now.ContainerResource != nil {
			value = &now.ContainerResource.Current
		}
		return string(m.ContainerResource.Name) + ": " + printUse(m.ContainerResource.Target, value)
	}
	return "<unknown type>"
}

// printAmount shows a number of something, or how much of it there is for a pod.
func printAmount(target autoscalingv2.MetricTarget, now *autoscalingv2.MetricValueStatus) string {
	is := "<unknown>"
	if target.AverageValue == nil {
		if now != nil {
			is = quantity(now.Value)
		}
		return is + "/" + quantity(target.Value)
	}
	if now != nil && now.AverageValue != nil {
		is = quantity(now.AverageValue)
	}
	return is + "/" + quantity(target.AverageValue) + " (avg)"
}

// printUse shows how much of a resource a pod uses, or what part of what it asked for.
func printUse(target autoscalingv2.MetricTarget, now *autoscalingv2.MetricValueStatus) string {
	is, wanted := "<unknown>", "<auto>"
	if target.AverageValue != nil {
		if now != nil {
			is = quantity(now.AverageValue)
		}
		return is + "/" + quantity(target.AverageValue)
	}
	if now != nil && now.AverageUtilization != nil {
		is = fmt.Sprintf("%d%%", *now.AverageUtilization)
	}
	if target.AverageUtilization != nil {
		wanted = fmt.Sprintf("%d%%", *target.AverageUtilization)
	}
	return is + "/" + wanted
}

func quantity(q *resource.Quantity) string {
	if q == nil {
		return "<nil>"
	}
	return q.String()
}
