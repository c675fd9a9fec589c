package core

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis"
)

var configMaps = apis.Define(apis.Resource[*corev1.ConfigMap]{
	Plural: "configmaps",
	Short:  []string{"cm"},
	Columns: []apis.Column[*corev1.ConfigMap]{
		{Name: "Data", Type: "integer", Cell: func(c *corev1.ConfigMap, _ time.Time) any { return int64(len(c.Data) + len(c.BinaryData)) }},
	},
})
