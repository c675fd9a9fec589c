package apps

import (
	"cmp"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/podspec"
)

var daemonSets = apis.Define(apis.Resource[*appsv1.DaemonSet]{
	Plural:     "daemonsets",
	Short:      []string{"ds"},
	Categories: []string{"all"},

	Default:  defaultDaemonSet,
	Prepare:  prepareDaemonSet,
	Validate: validateDaemonSet,
	Warn: func(d, old *appsv1.DaemonSet) []string {
		if old != nil && equality.Semantic.DeepEqual(d.Spec.Template, old.Spec.Template) {
			return nil
		}
		return podspec.Template(&d.Spec.Template, nil).Warn(check.At{}.Dot("spec.template"))
	},
	Spec: func(d *appsv1.DaemonSet) any { return &d.Spec },
	Subs: []apis.Sub[*appsv1.DaemonSet]{func() apis.Sub[*appsv1.DaemonSet] {
		s := meta.Status(validateDaemonSetStatus)
		s.Prepare = numberTemplate
		return s
	}()},

	Columns: append([]apis.Column[*appsv1.DaemonSet]{
		{Name: "Desired", Type: "integer", Cell: func(d *appsv1.DaemonSet, _ time.Time) any { return int64(d.Status.DesiredNumberScheduled) }},
		{Name: "Current", Type: "integer", Cell: func(d *appsv1.DaemonSet, _ time.Time) any { return int64(d.Status.CurrentNumberScheduled) }},
		{Name: "Ready", Type: "integer", Cell: func(d *appsv1.DaemonSet, _ time.Time) any { return int64(d.Status.NumberReady) }},
		{Name: "Up-to-date", Type: "integer", Cell: func(d *appsv1.DaemonSet, _ time.Time) any { return int64(d.Status.UpdatedNumberScheduled) }},
		{Name: "Available", Type: "integer", Cell: func(d *appsv1.DaemonSet, _ time.Time) any { return int64(d.Status.NumberAvailable) }},
		{Name: "Node Selector", Cell: func(d *appsv1.DaemonSet, _ time.Time) any {
			return labels.FormatLabels(d.Spec.Template.Spec.NodeSelector)
		}},
	}, meta.WorkloadColumns(
		func(d *appsv1.DaemonSet) *corev1.PodSpec { return &d.Spec.Template.Spec },
		func(d *appsv1.DaemonSet) string { return metav1.FormatLabelSelector(d.Spec.Selector) },
	)...),
})

func defaultDaemonSet(d *appsv1.DaemonSet) {
	podspec.Default(&d.Spec.Template.Spec)
	u := &d.Spec.UpdateStrategy
	u.Type = cmp.Or(u.Type, appsv1.RollingUpdateDaemonSetStrategyType)
	if u.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		u.RollingUpdate = cmp.Or(u.RollingUpdate, &appsv1.RollingUpdateDaemonSet{})
		u.RollingUpdate.MaxUnavailable = cmp.Or(u.RollingUpdate.MaxUnavailable, new(intstr.FromInt32(1)))
		u.RollingUpdate.MaxSurge = cmp.Or(u.RollingUpdate.MaxSurge, new(intstr.FromInt32(0)))
	}
	d.Spec.RevisionHistoryLimit = cmp.Or(d.Spec.RevisionHistoryLimit, new(int32(10)))
}

func prepareDaemonSet(d, old *appsv1.DaemonSet) {
	meta.KeepStatus(d, old)
	podspec.DropTemplate(&d.Spec.Template, daemonTemplate(old))
	numberTemplate(d, old)
}

// numberTemplate writes into an annotation how many templates there were. It
// was a field of the spec once, and is not for clients to write.
func numberTemplate(d, old *appsv1.DaemonSet) {
	number := func(d *appsv1.DaemonSet) int64 {
		n, _ := strconv.ParseInt(d.Annotations[appsv1.DeprecatedTemplateGeneration], 10, 64)
		return n
	}
	n := max(number(d), 1)
	if old != nil {
		n = number(old)
		if !equality.Semantic.DeepEqual(d.Spec.Template, old.Spec.Template) {
			n++
		}
	}
	metav1.SetMetaDataAnnotation(&d.ObjectMeta, appsv1.DeprecatedTemplateGeneration, strconv.FormatInt(n, 10))
}

func daemonTemplate(d *appsv1.DaemonSet) *corev1.PodTemplateSpec {
	if d == nil {
		return nil
	}
	return &d.Spec.Template
}

func validateDaemonSet(d, old *appsv1.DaemonSet) field.ErrorList {
	at := check.New().Dot("spec")
	s, lenient := d.Spec.Selector, false
	if old != nil {
		at.Dot("selector").Same(s, old.Spec.Selector)
		lenient = metavalidation.LabelSelectorHasInvalidLabelValue(old.Spec.Selector)
	}
	if s != nil {
		meta.Selector(at.Dot("selector"), s, lenient)
	}
	t, template := &d.Spec.Template, at.Dot("template")
	if selector, err := metav1.LabelSelectorAsSelector(s); err == nil && !selector.Matches(labels.Set(t.Labels)) {
		template.Dot("metadata.labels").Invalid(t.Labels, "`selector` does not match template `labels`")
	}
	if s != nil {
		notEmpty(at.Dot("selector"), s, "daemonset")
	}
	podspec.ValidateTemplate(template, t, daemonTemplate(old))
	podspec.Restarts(template.Dot("spec"), &t.Spec, "DaemonSet")
	check.NonNegative(at.Dot("minReadySeconds"), d.Spec.MinReadySeconds)
	daemonStrategy(at.Dot("updateStrategy"), &d.Spec.UpdateStrategy)
	check.NonNegativeIf(at.Dot("revisionHistoryLimit"), d.Spec.RevisionHistoryLimit)
	return at.Errors()
}

func daemonStrategy(at check.At, u *appsv1.DaemonSetUpdateStrategy) {
	switch u.Type {
	case appsv1.OnDeleteDaemonSetStrategyType:
	case appsv1.RollingUpdateDaemonSetStrategyType:
		daemonRolling(at.Dot("rollingUpdate"), u.RollingUpdate)
	default:
		at.Add(field.NotSupported(at.Path(), check.Bare(u),
			[]appsv1.DaemonSetUpdateStrategyType{appsv1.RollingUpdateDaemonSetStrategyType, appsv1.OnDeleteDaemonSetStrategyType}))
	}
}

func daemonRolling(at check.At, r *appsv1.RollingUpdateDaemonSet) {
	meta.Share(at.Dot("maxUnavailable"), r.MaxUnavailable)
	meta.Share(at.Dot("maxSurge"), r.MaxSurge)
	meta.AtMostAll(at.Dot("maxUnavailable"), r.MaxUnavailable)
	meta.AtMostAll(at.Dot("maxSurge"), r.MaxSurge)
	switch down, up := !meta.None(r.MaxUnavailable), !meta.None(r.MaxSurge); {
	case down && up:
		at.Dot("maxSurge").Invalid(*r.MaxSurge, "may not be set when maxUnavailable is non-zero")
	case !down && !up:
		at.Dot("maxUnavailable").Required("cannot be 0 when maxSurge is 0")
	}
}

func validateDaemonSetStatus(d, old *appsv1.DaemonSet) field.ErrorList {
	s, at := d.Status, check.New().Dot("status")
	check.NonNegative(at.Dot("currentNumberScheduled"), s.CurrentNumberScheduled)
	check.NonNegative(at.Dot("numberMisscheduled"), s.NumberMisscheduled)
	check.NonNegative(at.Dot("desiredNumberScheduled"), s.DesiredNumberScheduled)
	check.NonNegative(at.Dot("numberReady"), s.NumberReady)
	check.NonNegative(at.Dot("observedGeneration"), s.ObservedGeneration)
	check.NonNegative(at.Dot("updatedNumberScheduled"), s.UpdatedNumberScheduled)
	check.NonNegative(at.Dot("numberAvailable"), s.NumberAvailable)
	check.NonNegative(at.Dot("numberUnavailable"), s.NumberUnavailable)
	check.NonNegativeIf(at.Dot("collisionCount"), s.CollisionCount)
	collisions(at.Dot("collisionCount"), s.CollisionCount, old.Status.CollisionCount)
	return at.Errors()
}
