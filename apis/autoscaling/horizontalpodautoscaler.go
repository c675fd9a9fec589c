package autoscaling

import (
	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var horizontalPodAutoscalers = apis.Define(apis.Resource[*autoscalingv2.HorizontalPodAutoscaler]{
	Plural:     "horizontalpodautoscalers",
	Short:      []string{"hpa"},
	Categories: []string{"all"},
	Prepare:    meta.KeepStatus[*autoscalingv2.HorizontalPodAutoscaler],
	Subs:       []apis.Sub[*autoscalingv2.HorizontalPodAutoscaler]{meta.Status[*autoscalingv2.HorizontalPodAutoscaler](nil)},
})
