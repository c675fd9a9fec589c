package scheduling

import (
	schedulingv1 "k8s.io/api/scheduling/v1"

	"github.com/knarr-dev/knarr/apis"
)

var priorityClasses = apis.Define(apis.Resource[*schedulingv1.PriorityClass]{
	Plural: "priorityclasses",
	Short:  []string{"pc"},
	Scope:  apis.Cluster,
})
