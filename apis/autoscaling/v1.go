package autoscaling

import (
	"encoding/json"
	"maps"
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
)

// v1 shows autoscalers as they were when there was but the CPU to measure.
// What has no field there is in annotations, so that it comes back unharmed.
var v1 = apis.View{
	GroupVersion: autoscalingv1.SchemeGroupVersion,

	New: func() apis.Object { return &autoscalingv1.HorizontalPodAutoscaler{} },
	Fill: func(view, stored apis.Object) {
		fill(view.(*autoscalingv1.HorizontalPodAutoscaler), stored.(*autoscalingv2.HorizontalPodAutoscaler))
	},
	Read: func(stored, view apis.Object) {
		read(stored.(*autoscalingv2.HorizontalPodAutoscaler), view.(*autoscalingv1.HorizontalPodAutoscaler))
	},
}

// The annotations for what v1 has no field for. Those for tolerances are of
// servers long gone.
const (
	annotated     = "autoscaling.alpha.kubernetes.io/"
	specsNote     = annotated + "metrics"
	statusesNote  = annotated + "current-metrics"
	conditionNote = annotated + "conditions"
	behaviorNote  = annotated + "behavior"
)

var notes = []string{specsNote, statusesNote, conditionNote, behaviorNote, annotated + "scale-down-tolerance", annotated + "scale-up-tolerance"}

// cpu reports whether a metric is the one that v1 has a field for.
func cpu(m *autoscalingv2.MetricSpec) bool {
	return m.Type == autoscalingv2.ResourceMetricSourceType && m.Resource != nil &&
		m.Resource.Name == corev1.ResourceCPU && m.Resource.Target.AverageUtilization != nil
}

func fill(view *autoscalingv1.HorizontalPodAutoscaler, a *autoscalingv2.HorizontalPodAutoscaler) {
	*view = autoscalingv1.HorizontalPodAutoscaler{
		ObjectMeta: a.ObjectMeta,
		Spec: autoscalingv1.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv1.CrossVersionObjectReference(a.Spec.ScaleTargetRef),
			MinReplicas:    a.Spec.MinReplicas,
			MaxReplicas:    a.Spec.MaxReplicas,
		},
		Status: autoscalingv1.HorizontalPodAutoscalerStatus{
			ObservedGeneration: a.Status.ObservedGeneration,
			LastScaleTime:      a.Status.LastScaleTime,
			CurrentReplicas:    a.Status.CurrentReplicas,
			DesiredReplicas:    a.Status.DesiredReplicas,
		},
	}
	view.Annotations = without(a.Annotations)
	var specs []autoscalingv1.MetricSpec
	for i := range a.Spec.Metrics {
		switch m := &a.Spec.Metrics[i]; {
		case !cpu(m):
			specs = append(specs, specOut(m))
		case view.Spec.TargetCPUUtilizationPercentage == nil:
			view.Spec.TargetCPUUtilizationPercentage = m.Resource.Target.AverageUtilization
		}
	}
	var statuses []autoscalingv1.MetricStatus
	for i := range a.Status.CurrentMetrics {
		m := &a.Status.CurrentMetrics[i]
		statuses = append(statuses, statusOut(m))
		if m.Type == autoscalingv2.ResourceMetricSourceType && m.Resource != nil && m.Resource.Name == corev1.ResourceCPU && m.Resource.Current.AverageUtilization != nil {
			view.Status.CurrentCPUUtilizationPercentage = m.Resource.Current.AverageUtilization
		}
	}
	note(view, specsNote, len(specs) > 0, specs)
	note(view, statusesNote, len(statuses) > 0, statuses)
	// As upstream: with the names that fields have in Go.
	note(view, behaviorNote, a.Spec.Behavior != nil, check.Bare(a.Spec.Behavior))
	note(view, conditionNote, len(a.Status.Conditions) > 0, a.Status.Conditions)
}

// without is annotations but those that stand for fields.
func without(annotations map[string]string) map[string]string {
	all := maps.Clone(annotations)
	for _, name := range notes {
		delete(all, name)
	}
	return all
}

// note writes down v as an annotation where there is something to tell.
func note(view *autoscalingv1.HorizontalPodAutoscaler, name string, there bool, v any) {
	if !there {
		return
	}
	if view.Annotations == nil {
		view.Annotations = map[string]string{}
	}
	var text strings.Builder
	if err := json.NewEncoder(&text).Encode(v); err == nil {
		view.Annotations[name] = strings.TrimSpace(text.String())
	}
}

func read(a *autoscalingv2.HorizontalPodAutoscaler, view *autoscalingv1.HorizontalPodAutoscaler) {
	*a = autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: view.ObjectMeta,
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference(view.Spec.ScaleTargetRef),
			MinReplicas:    view.Spec.MinReplicas,
			MaxReplicas:    view.Spec.MaxReplicas,
		},
		Status: autoscalingv2.HorizontalPodAutoscalerStatus{
			ObservedGeneration: view.Status.ObservedGeneration,
			LastScaleTime:      view.Status.LastScaleTime,
			CurrentReplicas:    view.Status.CurrentReplicas,
			DesiredReplicas:    view.Status.DesiredReplicas,
		},
	}
	a.Annotations = without(view.Annotations)
	var specs []autoscalingv1.MetricSpec
	noted(view, specsNote, &specs)
	for i := range specs {
		a.Spec.Metrics = append(a.Spec.Metrics, specIn(&specs[i]))
	}
	if part := view.Spec.TargetCPUUtilizationPercentage; part != nil {
		m := defaultMetrics()
		m[0].Resource.Target.AverageUtilization = part
		a.Spec.Metrics = append(a.Spec.Metrics, m...)
	}
	var statuses []autoscalingv1.MetricStatus
	if part := view.Status.CurrentCPUUtilizationPercentage; !noted(view, statusesNote, &statuses) && part != nil {
		statuses = []autoscalingv1.MetricStatus{{
			Type:     autoscalingv1.ResourceMetricSourceType,
			Resource: &autoscalingv1.ResourceMetricStatus{Name: corev1.ResourceCPU, CurrentAverageUtilization: part},
		}}
	}
	for i := range statuses {
		a.Status.CurrentMetrics = append(a.Status.CurrentMetrics, statusIn(&statuses[i]))
	}
	var behavior autoscalingv2.HorizontalPodAutoscalerBehavior
	if noted(view, behaviorNote, &behavior) && behavior != (autoscalingv2.HorizontalPodAutoscalerBehavior{}) {
		a.Spec.Behavior = &behavior
	}
	noted(view, conditionNote, &a.Status.Conditions)
}

// noted reads what an annotation tells, and reports whether it does.
func noted(view *autoscalingv1.HorizontalPodAutoscaler, name string, v any) bool {
	text, ok := view.Annotations[name]
	return ok && json.Unmarshal([]byte(text), v) == nil
}
