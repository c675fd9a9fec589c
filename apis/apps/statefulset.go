package apps

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/podspec"
	"github.com/knarr-dev/knarr/apis/volume"
)

var statefulSets = apis.Define(apis.Resource[*appsv1.StatefulSet]{
	Plural:     "statefulsets",
	Short:      []string{"sts"},
	Categories: []string{"all"},

	Default:  defaultStatefulSet,
	Prepare:  prepareStatefulSet,
	Validate: validateStatefulSet,
	Warn:     warnStatefulSet,
	Name:     validation.NameIsDNSLabel,
	Spec:     func(s *appsv1.StatefulSet) any { return &s.Spec },
	Subs:     []apis.Sub[*appsv1.StatefulSet]{meta.Status(validateStatefulSetStatus)},
	Scale: &apis.Scale[*appsv1.StatefulSet]{
		Wanted:   func(s *appsv1.StatefulSet) *int32 { return meta.Wanted(&s.Spec.Replicas) },
		Has:      func(s *appsv1.StatefulSet) int32 { return s.Status.Replicas },
		Selector: func(s *appsv1.StatefulSet) string { return selectorString(s.Spec.Selector) },
	},

	Columns: append([]apis.Column[*appsv1.StatefulSet]{
		{Name: "Ready", Cell: func(s *appsv1.StatefulSet, _ time.Time) any {
			return fmt.Sprintf("%d/%d", s.Status.ReadyReplicas, meta.Deref(s.Spec.Replicas, 0))
		}},
	}, meta.ContainerColumns(func(s *appsv1.StatefulSet) *corev1.PodSpec { return &s.Spec.Template.Spec })...),
})

func defaultStatefulSet(set *appsv1.StatefulSet) {
	s := &set.Spec
	podspec.Default(&s.Template.Spec)
	for i := range s.VolumeClaimTemplates {
		c := &s.VolumeClaimTemplates[i]
		c.APIVersion, c.Kind = "v1", "PersistentVolumeClaim"
		volume.DefaultClaim(c)
	}
	s.PodManagementPolicy = cmp.Or(s.PodManagementPolicy, appsv1.OrderedReadyPodManagement)
	u := &s.UpdateStrategy
	if u.Type == "" {
		u.Type = appsv1.RollingUpdateStatefulSetStrategyType
		u.RollingUpdate = cmp.Or(u.RollingUpdate, &appsv1.RollingUpdateStatefulSetStrategy{})
	}
	if u.Type == appsv1.RollingUpdateStatefulSetStrategyType && u.RollingUpdate != nil {
		u.RollingUpdate.Partition = cmp.Or(u.RollingUpdate.Partition, new(int32(0)))
	}
	keep := cmp.Or(s.PersistentVolumeClaimRetentionPolicy, &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{})
	keep.WhenDeleted = cmp.Or(keep.WhenDeleted, appsv1.RetainPersistentVolumeClaimRetentionPolicyType)
	keep.WhenScaled = cmp.Or(keep.WhenScaled, appsv1.RetainPersistentVolumeClaimRetentionPolicyType)
	s.PersistentVolumeClaimRetentionPolicy = keep
	s.Replicas = cmp.Or(s.Replicas, new(int32(1)))
	s.RevisionHistoryLimit = cmp.Or(s.RevisionHistoryLimit, new(int32(10)))
}

func prepareStatefulSet(s, old *appsv1.StatefulSet) {
	meta.KeepStatus(s, old)
	podspec.DropTemplate(&s.Spec.Template, statefulTemplate(old))
	// Off by default: more than one pod down at a time.
	had := old != nil && old.Spec.UpdateStrategy.RollingUpdate != nil && old.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable != nil
	if r := s.Spec.UpdateStrategy.RollingUpdate; r != nil && !had {
		r.MaxUnavailable = nil
	}
}

func statefulTemplate(s *appsv1.StatefulSet) *corev1.PodTemplateSpec {
	if s == nil {
		return nil
	}
	return &s.Spec.Template
}

func validateStatefulSet(s, old *appsv1.StatefulSet) field.ErrorList {
	at := check.New().Dot("spec")
	if old == nil {
		statefulSpec(at, &s.Spec, nil, true)
		return at.Errors()
	}
	// A template that was stored with faults is only checked for what must
	// hold of every template.
	before := at.Aside()
	statefulSpec(before, &old.Spec, &old.Spec.Template, true)
	statefulSpec(at, &s.Spec, &old.Spec.Template, before.Found() == 0)
	now, was := s.Spec, old.Spec
	now.Replicas, now.Template, now.UpdateStrategy, now.MinReadySeconds = was.Replicas, was.Template, was.UpdateStrategy, was.MinReadySeconds
	now.Ordinals, now.RevisionHistoryLimit = was.Ordinals, was.RevisionHistoryLimit
	now.PersistentVolumeClaimRetentionPolicy = was.PersistentVolumeClaimRetentionPolicy
	now.VolumeClaimTemplates, was.VolumeClaimTemplates = untyped(now.VolumeClaimTemplates), untyped(was.VolumeClaimTemplates)
	if !equality.Semantic.DeepEqual(now, was) {
		at.Forbidden("updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', " +
			"'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden")
	}
	return at.Errors()
}

// untyped is claims without their kind, which is not stored with them.
func untyped(claims []corev1.PersistentVolumeClaim) []corev1.PersistentVolumeClaim {
	claims = slices.Clone(claims)
	for i := range claims {
		claims[i].TypeMeta = metav1.TypeMeta{}
	}
	return claims
}

// statefulSpec checks a spec; was is the template it had before, nil for a new
// one, which must also name its service and make its claims well.
func statefulSpec(at check.At, s *appsv1.StatefulSetSpec, was *corev1.PodTemplateSpec, strict bool) {
	statefulStrategy(at, s)
	policies := []string{string(appsv1.RetainPersistentVolumeClaimRetentionPolicyType), string(appsv1.DeletePersistentVolumeClaimRetentionPolicyType)}
	keep := s.PersistentVolumeClaimRetentionPolicy
	check.Listed(at.Dot("persistentVolumeClaimRetentionPolicy.whenDeleted"), string(keep.WhenDeleted), policies...)
	check.Listed(at.Dot("persistentVolumeClaimRetentionPolicy.whenScaled"), string(keep.WhenScaled), policies...)
	if was == nil {
		for i := range s.VolumeClaimTemplates {
			volume.Claim(at.Dot("volumeClaimTemplates").Index(i).Dot("spec"), &s.VolumeClaimTemplates[i].Spec, volume.Lenience{})
		}
	}
	check.NonNegative(at.Dot("replicas"), *s.Replicas)
	check.NonNegative(at.Dot("minReadySeconds"), s.MinReadySeconds)
	if s.Ordinals != nil {
		check.NonNegative(at.Dot("ordinals.start"), s.Ordinals.Start)
	}
	if was == nil && s.ServiceName != "" {
		at.Dot("serviceName").Label(s.ServiceName)
	}
	template := at.Dot("template")
	if selector := selector(at.Dot("selector"), s.Selector, "statefulset", ""); selector != nil {
		t := asPodsHaveIt(s)
		selects(template, selector, t)
		if strict {
			podspec.ValidateTemplate(template, t, was)
		}
		meta.Labels(template.Dot("labels"), t.Labels)
		meta.Annotations(template.Dot("annotations"), t.Annotations)
		podspec.Template(t, was).Annotations(template.Dot("annotations"))
	}
	podspec.Restarts(template.Dot("spec"), &s.Template.Spec, "StatefulSet")
}

func statefulStrategy(at check.At, s *appsv1.StatefulSetSpec) {
	switch p := at.Dot("podManagementPolicy"); s.PodManagementPolicy {
	case appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement:
	default:
		p.Invalid(s.PodManagementPolicy, "must be 'OrderedReady' or 'Parallel'")
	}
	at, rolling := at.Dot("updateStrategy"), s.UpdateStrategy.RollingUpdate
	switch s.UpdateStrategy.Type {
	case appsv1.OnDeleteStatefulSetStrategyType:
		if rolling != nil {
			at.Dot("rollingUpdate").Invalid(check.Bare(rolling), "only allowed for updateStrategy 'RollingUpdate'")
		}
	case appsv1.RollingUpdateStatefulSetStrategyType:
		if rolling == nil {
			return
		}
		check.NonNegative(at.Dot("rollingUpdate.partition"), *rolling.Partition)
		if n, at := rolling.MaxUnavailable, at.Dot("rollingUpdate.maxUnavailable"); n != nil {
			meta.Share(at, n)
			if meta.None(n) {
				at.Invalid(*n, "cannot be 0")
			}
			meta.AtMostAll(at, n)
		}
	default:
		at.Invalid(check.Bare(s.UpdateStrategy), "must be 'RollingUpdate' or 'OnDelete'")
	}
}

// asPodsHaveIt is the template of a set as its pods will have it: with the
// volumes of the claims, and with names of their own.
func asPodsHaveIt(s *appsv1.StatefulSetSpec) *corev1.PodTemplateSpec {
	t := s.Template.DeepCopy()
	t.Spec.Hostname, t.Spec.Subdomain = "", ""
	if len(s.VolumeClaimTemplates) == 0 {
		return t
	}
	volumes := []corev1.Volume{}
	for _, c := range s.VolumeClaimTemplates {
		source := corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: c.Name}}
		volumes = append(volumes, corev1.Volume{Name: c.Name, VolumeSource: source})
	}
	for _, v := range t.Spec.Volumes {
		if !slices.ContainsFunc(s.VolumeClaimTemplates, func(c corev1.PersistentVolumeClaim) bool { return c.Name == v.Name }) {
			volumes = append(volumes, v)
		}
	}
	t.Spec.Volumes = volumes
	return t
}

func validateStatefulSetStatus(set, old *appsv1.StatefulSet) field.ErrorList {
	s, at := set.Status, check.New().Dot("status")
	check.NonNegative(at.Dot("replicas"), s.Replicas)
	check.NonNegative(at.Dot("readyReplicas"), s.ReadyReplicas)
	check.NonNegative(at.Dot("currentReplicas"), s.CurrentReplicas)
	check.NonNegative(at.Dot("updatedReplicas"), s.UpdatedReplicas)
	check.NonNegative(at.Dot("availableReplicas"), s.AvailableReplicas)
	check.NonNegative(at.Dot("observedGeneration"), s.ObservedGeneration)
	check.NonNegativeIf(at.Dot("collisionCount"), s.CollisionCount)
	check.AtMost(at.Dot("readyReplicas"), s.ReadyReplicas, s.Replicas, "status.replicas")
	check.AtMost(at.Dot("currentReplicas"), s.CurrentReplicas, s.Replicas, "status.replicas")
	check.AtMost(at.Dot("updatedReplicas"), s.UpdatedReplicas, s.Replicas, "status.replicas")
	check.AtMost(at.Dot("availableReplicas"), s.AvailableReplicas, s.Replicas, "status.replicas")
	check.AtMost(at.Dot("availableReplicas"), s.AvailableReplicas, s.ReadyReplicas, "status.readyReplicas")
	collisions(at.Dot("collisionCount"), s.CollisionCount, old.Status.CollisionCount)
	return at.Errors()
}

func warnStatefulSet(s, old *appsv1.StatefulSet) []string {
	var w check.Warnings
	at := check.At{}.Dot("spec")
	if old == nil || !equality.Semantic.DeepEqual(s.Spec, old.Spec) {
		w.Add(podspec.Template(&s.Spec.Template, nil).Warn(at.Dot("template"))...)
	}
	for i := range s.Spec.VolumeClaimTemplates {
		claim := at.Dot("volumeClaimTemplates").Index(i)
		if old != nil {
			claim = claim.Dot("Spec")
		}
		volume.WarnClaim(&w, claim, &s.Spec.VolumeClaimTemplates[i].Spec)
	}
	if *s.Spec.RevisionHistoryLimit < 0 {
		w.Add("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended")
	}
	return w
}
