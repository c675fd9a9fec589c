package core

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var replicationControllers = apis.Define(apis.Resource[*corev1.ReplicationController]{
	Plural:     "replicationcontrollers",
	Short:      []string{"rc"},
	Categories: []string{"all"},
	StoredAt:   "controllers",
	Prepare:    meta.KeepStatus[*corev1.ReplicationController],
	Spec:       func(c *corev1.ReplicationController) any { return &c.Spec },
	Subs:       []apis.Sub[*corev1.ReplicationController]{meta.Status[*corev1.ReplicationController](nil)},
	Scale: &apis.Scale[*corev1.ReplicationController]{
		Wanted:   func(c *corev1.ReplicationController) *int32 { return meta.Wanted(&c.Spec.Replicas) },
		Has:      func(c *corev1.ReplicationController) int32 { return c.Status.Replicas },
		Selector: func(c *corev1.ReplicationController) string { return labels.Set(c.Spec.Selector).String() },
	},
	Fields: map[string]func(*corev1.ReplicationController) string{
		"status.replicas": func(c *corev1.ReplicationController) string { return strconv.Itoa(int(c.Status.Replicas)) },
	},
	Lifetime: apis.Lifetime[*corev1.ReplicationController]{OrphansDefault: true},
})
