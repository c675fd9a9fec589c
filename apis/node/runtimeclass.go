package node

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/podspec"
)

var runtimeClasses = apis.Define(apis.Resource[*nodev1.RuntimeClass]{
	Plural: "runtimeclasses",
	Scope:  apis.Cluster,

	Validate: validateRuntimeClass,
	Warn:     warnRuntimeClass,

	Columns: []apis.Column[*nodev1.RuntimeClass]{
		{Name: "Handler", Cell: func(c *nodev1.RuntimeClass, _ time.Time) any { return c.Handler }},
	},
	Lifetime: apis.Lifetime[*nodev1.RuntimeClass]{NeedsVersion: true, UpsertsOnUpdate: true},
})

func validateRuntimeClass(c, old *nodev1.RuntimeClass) field.ErrorList {
	at := check.New()
	if at := at.Dot("handler"); at.Present(c.Handler) {
		at.Label(c.Handler)
	}
	if c.Overhead != nil {
		podspec.Overhead(at.Dot("overhead"), c.Overhead.PodFixed)
	}
	if s := c.Scheduling; s != nil {
		meta.Labels(at.Dot("scheduling.nodeSelector"), s.NodeSelector)
		tolerations(at.Dot("scheduling.tolerations"), s.Tolerations)
	}
	if old != nil {
		at.Dot("handler").Same(c.Handler, old.Handler)
	}
	return at.Errors()
}

// tolerations checks tolerations that all pods of the class have. Each stands
// once, whatever its time.
func tolerations(at check.At, all []corev1.Toleration) {
	podspec.Tolerations(at, all)
	seen := check.Set[corev1.Toleration]{}
	for i, t := range all {
		if seen.Twice(corev1.Toleration{Key: t.Key, Operator: t.Operator, Value: t.Value, Effect: t.Effect}) {
			at.Index(i).Duplicate(check.Bare(t))
		}
	}
}

func warnRuntimeClass(c, _ *nodev1.RuntimeClass) []string {
	var w check.Warnings
	if c.Scheduling == nil {
		return nil
	}
	for key := range check.Sorted(c.Scheduling.NodeSelector) {
		if instead := meta.OldNodeLabel(key); instead != "" {
			w.At(check.At{}.Dot("scheduling.nodeSelector"), "%s", instead)
		}
	}
	return w
}
