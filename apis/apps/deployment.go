package apps

import (
	"cmp"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/podspec"
)

var deployments = apis.Define(apis.Resource[*appsv1.Deployment]{
	Plural:     "deployments",
	Short:      []string{"deploy"},
	Categories: []string{"all"},

	Default: defaultDeployment,
	Prepare: func(d, old *appsv1.Deployment) {
		meta.KeepStatus(d, old)
		podspec.DropTemplate(&d.Spec.Template, deploymentTemplate(old))
	},
	Validate: validateDeployment,
	Warn:     warnDeployment,
	Spec:     deploymentSpec,
	Subs:     []apis.Sub[*appsv1.Deployment]{meta.Status(validateDeploymentStatus, "metadata.labels")},
	Scale: &apis.Scale[*appsv1.Deployment]{
		Wanted:   func(d *appsv1.Deployment) *int32 { return meta.Wanted(&d.Spec.Replicas) },
		Has:      func(d *appsv1.Deployment) int32 { return d.Status.Replicas },
		Selector: func(d *appsv1.Deployment) string { return selectorString(d.Spec.Selector) },
	},

	Columns: append([]apis.Column[*appsv1.Deployment]{
		{Name: "Ready", Cell: func(d *appsv1.Deployment, _ time.Time) any {
			return fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, meta.Deref(d.Spec.Replicas, 0))
		}},
		{Name: "Up-to-date", Cell: func(d *appsv1.Deployment, _ time.Time) any { return int64(d.Status.UpdatedReplicas) }},
		{Name: "Available", Cell: func(d *appsv1.Deployment, _ time.Time) any { return int64(d.Status.AvailableReplicas) }},
	}, meta.WorkloadColumns(
		func(d *appsv1.Deployment) *corev1.PodSpec { return &d.Spec.Template.Spec },
		func(d *appsv1.Deployment) string {
			selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
			if err != nil {
				return "<invalid>"
			}
			return selector.String()
		},
	)...),
})

// deploymentSpec is what a generation is of: annotations too, since they are
// copied to the ReplicaSets.
func deploymentSpec(d *appsv1.Deployment) any { return []any{&d.Spec, d.Annotations} }

func defaultDeployment(d *appsv1.Deployment) {
	s := &d.Spec
	podspec.Default(&s.Template.Spec)
	s.Replicas = cmp.Or(s.Replicas, new(int32(1)))
	s.Strategy.Type = cmp.Or(s.Strategy.Type, appsv1.RollingUpdateDeploymentStrategyType)
	if s.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		r := cmp.Or(s.Strategy.RollingUpdate, &appsv1.RollingUpdateDeployment{})
		r.MaxUnavailable = cmp.Or(r.MaxUnavailable, new(intstr.FromString("25%")))
		r.MaxSurge = cmp.Or(r.MaxSurge, new(intstr.FromString("25%")))
		s.Strategy.RollingUpdate = r
	}
	s.RevisionHistoryLimit = cmp.Or(s.RevisionHistoryLimit, new(int32(10)))
	s.ProgressDeadlineSeconds = cmp.Or(s.ProgressDeadlineSeconds, new(int32(600)))
}

func deploymentTemplate(d *appsv1.Deployment) *corev1.PodTemplateSpec {
	if d == nil {
		return nil
	}
	return &d.Spec.Template
}

func validateDeployment(d, old *appsv1.Deployment) field.ErrorList {
	s, at := &d.Spec, check.New().Dot("spec")
	check.NonNegative(at.Dot("replicas"), *s.Replicas)
	replicas(at, s.Selector, &s.Template, deploymentTemplate(old))
	deploymentStrategy(at.Dot("strategy"), &s.Strategy)
	check.NonNegative(at.Dot("minReadySeconds"), s.MinReadySeconds)
	check.NonNegativeIf(at.Dot("revisionHistoryLimit"), s.RevisionHistoryLimit)
	check.NonNegative(at.Dot("progressDeadlineSeconds"), *s.ProgressDeadlineSeconds)
	if *s.ProgressDeadlineSeconds <= s.MinReadySeconds {
		at.Dot("progressDeadlineSeconds").Invalid(*s.ProgressDeadlineSeconds, "must be greater than minReadySeconds")
	}
	if old != nil {
		at.Dot("selector").Same(s.Selector, old.Spec.Selector)
	}
	return at.Errors()
}

func deploymentStrategy(at check.At, s *appsv1.DeploymentStrategy) {
	rolling := at.Dot("rollingUpdate")
	switch r := s.RollingUpdate; {
	case s.Type == appsv1.RecreateDeploymentStrategyType && r != nil:
		rolling.Forbidden("may not be specified when strategy `type` is 'Recreate'")
	case s.Type == appsv1.RecreateDeploymentStrategyType:
	case s.Type == appsv1.RollingUpdateDeploymentStrategyType:
		meta.Share(rolling.Dot("maxUnavailable"), r.MaxUnavailable)
		meta.Share(rolling.Dot("maxSurge"), r.MaxSurge)
		if meta.None(r.MaxUnavailable) && meta.None(r.MaxSurge) {
			rolling.Dot("maxUnavailable").Invalid(*r.MaxUnavailable, "may not be 0 when `maxSurge` is 0")
		}
		meta.AtMostAll(rolling.Dot("maxUnavailable"), r.MaxUnavailable)
	default:
		at.Add(field.NotSupported(at.Path(), check.Bare(s),
			[]appsv1.DeploymentStrategyType{appsv1.RecreateDeploymentStrategyType, appsv1.RollingUpdateDeploymentStrategyType}))
	}
}

func validateDeploymentStatus(d, old *appsv1.Deployment) field.ErrorList {
	s, at := d.Status, check.New().Dot("status")
	check.NonNegative(at.Dot("observedGeneration"), s.ObservedGeneration)
	check.NonNegative(at.Dot("replicas"), s.Replicas)
	check.NonNegative(at.Dot("updatedReplicas"), s.UpdatedReplicas)
	check.NonNegative(at.Dot("readyReplicas"), s.ReadyReplicas)
	check.NonNegative(at.Dot("availableReplicas"), s.AvailableReplicas)
	check.NonNegative(at.Dot("unavailableReplicas"), s.UnavailableReplicas)
	check.NonNegativeIf(at.Dot("terminatingReplicas"), s.TerminatingReplicas)
	check.NonNegativeIf(at.Dot("collisionCount"), s.CollisionCount)
	check.AtMost(at.Dot("updatedReplicas"), s.UpdatedReplicas, s.Replicas, "status.replicas")
	check.AtMost(at.Dot("readyReplicas"), s.ReadyReplicas, s.Replicas, "status.replicas")
	check.AtMost(at.Dot("availableReplicas"), s.AvailableReplicas, s.Replicas, "status.replicas")
	check.AtMost(at.Dot("availableReplicas"), s.AvailableReplicas, s.ReadyReplicas, "readyReplicas")
	collisions(at.Dot("collisionCount"), s.CollisionCount, old.Status.CollisionCount)
	return at.Errors()
}

func warnDeployment(d, old *appsv1.Deployment) []string {
	var w check.Warnings
	if old == nil {
		meta.WarnPodNames(&w, d.Name)
	} else if equality.Semantic.DeepEqual(deploymentSpec(d), deploymentSpec(old)) {
		return nil
	}
	w.Add(podspec.Template(&d.Spec.Template, nil).Warn(check.At{}.Dot("spec.template"))...)
	return w
}
