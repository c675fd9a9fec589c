package autoscaling_test

import (
	_ "embed"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/knarr-dev/knarr/apis/autoscaling"
	"github.com/knarr-dev/knarr/apis/kindtest"
)

//go:embed testdata/kinds.yaml
var kinds string

func TestKinds(t *testing.T) { kindtest.Run(t, autoscaling.Group, kinds) }

// TestV1 holds that nothing of an autoscaler is lost on the way to v1 and
// back, and that v1 shows the share of the CPU in its field.
func TestV1(t *testing.T) {
	d := &autoscaling.Group.Resources[0]
	view := d.Views[0]
	part, amount := int32(50), resource.MustParse("3")
	stored := &autoscalingv2.HorizontalPodAutoscaler{Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
		Behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{},
		Metrics: []autoscalingv2.MetricSpec{
			{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{
				Metric: autoscalingv2.MetricIdentifier{Name: "requests"},
				Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: &amount},
			}},
			{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
				Name:   corev1.ResourceCPU,
				Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &part},
			}},
		},
	}, Status: autoscalingv2.HorizontalPodAutoscalerStatus{
		Conditions: []autoscalingv2.HorizontalPodAutoscalerCondition{{Type: autoscalingv2.AbleToScale, Status: corev1.ConditionTrue}},
	}}
	d.Default(stored)
	shown, back := view.New(), d.New()
	view.Fill(shown, stored)
	if got := shown.(*autoscalingv1.HorizontalPodAutoscaler).Spec.TargetCPUUtilizationPercentage; got == nil || *got != part {
		t.Errorf("v1 shows %v of the CPU", got)
	}
	if note := shown.GetAnnotations()["autoscaling.alpha.kubernetes.io/behavior"]; !strings.Contains(note, `"ScaleUp":{"StabilizationWindowSeconds":0,`) {
		t.Errorf("the annotation for the behavior is %s", note)
	}
	view.Read(back, shown)
	d.Default(back)
	if diff := cmp.Diff(stored, back, cmp.Comparer(resource.Quantity.Equal), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("what came back (-sent +received):\n%s", diff)
	}
}
