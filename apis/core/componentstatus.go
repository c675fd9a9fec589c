package core

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis"
)

var componentStatuses = apis.Define(apis.Resource[*corev1.ComponentStatus]{
	Plural: "componentstatuses",
	Short:  []string{"cs"},
	Scope:  apis.Cluster,
	Verbs:  []string{"get", "list"},

	Deprecated: "v1 ComponentStatus is deprecated in v1.19+",
	Columns: []apis.Column[*corev1.ComponentStatus]{
		{Name: "Status", Cell: func(c *corev1.ComponentStatus, _ time.Time) any {
			switch health := healthy(c); health.Status {
			case "":
				return "Unknown"
			case corev1.ConditionTrue:
				return "Healthy"
			default:
				return "Unhealthy"
			}
		}},
		{Name: "Message", Cell: func(c *corev1.ComponentStatus, _ time.Time) any { return healthy(c).Message }},
		{Name: "Error", Cell: func(c *corev1.ComponentStatus, _ time.Time) any { return healthy(c).Error }},
		{Name: "Age"},
	},
})

// healthy is the condition that tells of a component's health, zero if there is none.
func healthy(c *corev1.ComponentStatus) corev1.ComponentCondition {
	for _, condition := range c.Conditions {
		if condition.Type == corev1.ComponentHealthy {
			return condition
		}
	}
	return corev1.ComponentCondition{}
}
