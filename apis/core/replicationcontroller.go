package core

import (
	"cmp"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/podspec"
)

var replicationControllers = apis.Define(apis.Resource[*corev1.ReplicationController]{
	Plural:     "replicationcontrollers",
	Short:      []string{"rc"},
	Categories: []string{"all"},
	StoredAt:   "controllers",
	Default:    defaultController,
	Prepare:    prepareController,
	Validate:   validateController,
	Warn:       warnController,
	Spec:       func(c *corev1.ReplicationController) any { return &c.Spec },
	Subs:       []apis.Sub[*corev1.ReplicationController]{meta.Status(validateControllerStatus)},
	Scale: &apis.Scale[*corev1.ReplicationController]{
		Wanted:   func(c *corev1.ReplicationController) *int32 { return meta.Wanted(&c.Spec.Replicas) },
		Has:      func(c *corev1.ReplicationController) int32 { return c.Status.Replicas },
		Selector: func(c *corev1.ReplicationController) string { return labels.Set(c.Spec.Selector).String() },
	},
	Fields: map[string]func(*corev1.ReplicationController) string{
		"status.replicas": func(c *corev1.ReplicationController) string { return strconv.Itoa(int(c.Status.Replicas)) },
	},
	Columns: append([]apis.Column[*corev1.ReplicationController]{
		{Name: "Desired", Type: "integer", Cell: func(c *corev1.ReplicationController, _ time.Time) any {
			return int64(meta.Deref(c.Spec.Replicas, 0))
		}},
		{Name: "Current", Type: "integer", Cell: func(c *corev1.ReplicationController, _ time.Time) any { return int64(c.Status.Replicas) }},
		{Name: "Ready", Type: "integer", Cell: func(c *corev1.ReplicationController, _ time.Time) any { return int64(c.Status.ReadyReplicas) }},
	}, meta.WorkloadColumns(
		func(c *corev1.ReplicationController) *corev1.PodSpec {
			if c.Spec.Template == nil {
				return &corev1.PodSpec{}
			}
			return &c.Spec.Template.Spec
		},
		func(c *corev1.ReplicationController) string { return labels.FormatLabels(c.Spec.Selector) })...),
	Lifetime: apis.Lifetime[*corev1.ReplicationController]{OrphansDefault: true},
})

func defaultController(c *corev1.ReplicationController) {
	c.Spec.Replicas = cmp.Or(c.Spec.Replicas, new(int32(1)))
	t := c.Spec.Template
	if t == nil {
		return
	}
	podspec.Default(&t.Spec)
	if t.Labels == nil {
		return
	}
	if len(c.Spec.Selector) == 0 {
		c.Spec.Selector = t.Labels
	}
	if len(c.Labels) == 0 {
		c.Labels = t.Labels
	}
}

func prepareController(c, old *corev1.ReplicationController) {
	meta.KeepStatus(c, old)
	if c.Spec.Template != nil {
		podspec.DropTemplate(c.Spec.Template, controllerTemplate(old))
	}
}

func controllerTemplate(c *corev1.ReplicationController) *corev1.PodTemplateSpec {
	if c == nil {
		return nil
	}
	return c.Spec.Template
}

func validateController(c, old *corev1.ReplicationController) field.ErrorList {
	at := check.New()
	spec := at.Dot("spec")
	check.NonNegative(spec.Dot("minReadySeconds"), c.Spec.MinReadySeconds)
	if len(c.Spec.Selector) == 0 {
		spec.Dot("selector").Required("")
	}
	check.NonNegative(spec.Dot("replicas"), *c.Spec.Replicas)
	t, at := c.Spec.Template, spec.Dot("template")
	if t == nil {
		at.Required("")
		return at.Errors()
	}
	if !labels.SelectorFromSet(c.Spec.Selector).Matches(labels.Set(t.Labels)) {
		at.Dot("metadata.labels").Invalid(t.Labels, "`selector` does not match template `labels`")
	}
	podspec.ValidateTemplate(at, t, controllerTemplate(old))
	podspec.Restarts(at.Dot("spec"), &t.Spec, "ReplicationController")
	return at.Errors()
}

func validateControllerStatus(c, _ *corev1.ReplicationController) field.ErrorList {
	s, at := c.Status, check.New().Dot("status")
	check.NonNegative(at.Dot("replicas"), s.Replicas)
	check.NonNegative(at.Dot("fullyLabeledReplicas"), s.FullyLabeledReplicas)
	check.NonNegative(at.Dot("readyReplicas"), s.ReadyReplicas)
	check.NonNegative(at.Dot("availableReplicas"), s.AvailableReplicas)
	check.NonNegative(at.Dot("observedGeneration"), s.ObservedGeneration)
	check.AtMost(at.Dot("fullyLabeledReplicas"), s.FullyLabeledReplicas, s.Replicas, "status.replicas")
	check.AtMost(at.Dot("readyReplicas"), s.ReadyReplicas, s.Replicas, "status.replicas")
	check.AtMost(at.Dot("availableReplicas"), s.AvailableReplicas, s.Replicas, "status.replicas")
	check.AtMost(at.Dot("availableReplicas"), s.AvailableReplicas, s.ReadyReplicas, "readyReplicas")
	return at.Errors()
}

func warnController(c, old *corev1.ReplicationController) []string {
	var w check.Warnings
	at := check.At{}.Dot("spec.template")
	if old == nil {
		meta.WarnPodNames(&w, c.Name)
		if c.Spec.Template != nil {
			w.Add(podspec.Template(c.Spec.Template, nil).Warn(at)...)
		}
	} else if old.Spec.Template != nil && !equality.Semantic.DeepEqual(c.Spec, old.Spec) {
		w.Add(podspec.Template(old.Spec.Template, nil).Warn(at)...) // as upstream: of what was
	}
	return w
}
