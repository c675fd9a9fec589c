package core

import (
	"reflect"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/podspec"
)

func defaultPod(p *corev1.Pod) {
	podspec.DefaultPod(p)
	s := &p.Status
	// Two names of one address: where they differ the older wins.
	if s.PodIP != "" && (len(s.PodIPs) == 0 || s.PodIPs[0].IP != s.PodIP) {
		s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	} else if len(s.PodIPs) > 0 {
		s.PodIP = s.PodIPs[0].IP
	}
	for _, c := range statuses(p) {
		meta.RoundUp(c.AllocatedResources)
		if c.Resources != nil {
			meta.RoundUp(c.Resources.Limits)
			meta.RoundUp(c.Resources.Requests)
		}
	}
}

// preparePod gives a new pod its first status, and puts into its spec what
// its labels and annotations say.
func preparePod(p, old *corev1.Pod) {
	if old != nil {
		p.Status = old.Status
		podspec.Drop(&p.Spec, &old.Spec)
		return
	}
	p.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: podspec.QOS(&p.Spec)}
	podspec.Drop(&p.Spec, nil)
	if len(p.Spec.SchedulingGates) > 0 {
		p.Status.Conditions = []corev1.PodCondition{{
			Type:               corev1.PodScheduled,
			Status:             corev1.ConditionFalse,
			Reason:             corev1.PodReasonSchedulingGated,
			Message:            "Scheduling is blocked due to non-empty scheduling gates",
			LastTransitionTime: p.CreationTimestamp,
		}}
	}
	mergeLabelKeys(p)
	for _, c := range podspec.Containers(check.At{}, &p.Spec) {
		if profile, inherited := oldAppArmor(p, c); profile != nil && !inherited {
			if c.SecurityContext == nil {
				c.SecurityContext = &corev1.SecurityContext{}
			}
			c.SecurityContext.AppArmorProfile = profile
		}
	}
}

// mergeLabelKeys writes the values that p has for the keys of its affinity
// and spread constraints into their selectors.
func mergeLabelKeys(p *corev1.Pod) {
	add := func(s *metav1.LabelSelector, keys []string, op metav1.LabelSelectorOperator) {
		for _, key := range keys {
			if value, ok := p.Labels[key]; ok && s != nil {
				s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: key, Operator: op, Values: []string{value}})
			}
		}
	}
	terms := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		for i := range preferred {
			t := &preferred[i].PodAffinityTerm
			add(t.LabelSelector, t.MatchLabelKeys, metav1.LabelSelectorOpIn)
			add(t.LabelSelector, t.MismatchLabelKeys, metav1.LabelSelectorOpNotIn)
		}
		for _, t := range required {
			add(t.LabelSelector, t.MatchLabelKeys, metav1.LabelSelectorOpIn)
			add(t.LabelSelector, t.MismatchLabelKeys, metav1.LabelSelectorOpNotIn)
		}
	}
	if a := p.Spec.Affinity; a != nil && a.PodAffinity != nil {
		terms(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a := p.Spec.Affinity; a != nil && a.PodAntiAffinity != nil {
		terms(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	for _, c := range p.Spec.TopologySpreadConstraints {
		add(c.LabelSelector, c.MatchLabelKeys, metav1.LabelSelectorOpIn)
	}
}

// oldAppArmor is the profile that an annotation gives a container whose field
// gives it none, and whether the pod's field gives it the same.
func oldAppArmor(p *corev1.Pod, c *corev1.Container) (profile *corev1.AppArmorProfile, inherited bool) {
	text, ok := p.Annotations[corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+c.Name]
	own := c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil
	if !ok || own || p.Spec.OS != nil && p.Spec.OS.Name == corev1.Windows {
		return nil, false
	}
	profile = podspec.AppArmorProfile(text)
	sc := p.Spec.SecurityContext
	return profile, sc != nil && reflect.DeepEqual(sc.AppArmorProfile, profile)
}

func validatePod(p, old *corev1.Pod) field.ErrorList {
	at := check.New()
	podRules(at, p, old)
	if old != nil {
		podChanges(at, p, old)
		return at.Errors()
	}
	spec := at.Dot("spec")
	if len(p.Spec.EphemeralContainers) > 0 {
		spec.Dot("ephemeralContainers").Forbidden("cannot be set on create")
	}
	if p.Spec.NodeName != "" && len(p.Spec.SchedulingGates) > 0 {
		spec.Dot("nodeName").Forbidden("cannot be set until all schedulingGates have been cleared")
	}
	podspec.Pod(p, nil).MatchAnnotations(spec)
	return at.Errors()
}

// podRules are what holds for a pod at all times.
func podRules(at check.At, p, old *corev1.Pod) {
	s, spec := podspec.Pod(p, old), at.Dot("spec")
	s.Annotations(at.Dot("metadata.annotations"))
	s.Validate(spec)
	if p.Spec.ServiceAccountName == "" {
		for i, v := range p.Spec.Volumes {
			if v.Projected == nil {
				continue
			}
			for j, source := range v.Projected.Sources {
				if source.ServiceAccountToken != nil {
					spec.Dot("volumes").Index(i).Dot("projected.sources").Index(j).Dot("serviceAccountToken").
						Forbidden("must not be specified when serviceAccountName is not set")
				}
			}
		}
	}
	podspec.Images(spec, &p.Spec)
}

func warnPod(p, old *corev1.Pod) []string {
	if old != nil {
		return nil
	}
	var w check.Warnings
	for _, c := range podspec.Containers(check.At{}, &p.Spec) {
		key := corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix + c.Name
		text, ok := p.Annotations[key]
		if profile, inherited := oldAppArmor(p, c); ok && !inherited && (profile != nil || podspec.AppArmorProfile(text) == nil || fromAnnotation(c, text)) {
			w.At(check.At{}.Dot("metadata.annotations").Key(key), podspec.OldAppArmor)
		}
	}
	if wrong := utilvalidation.IsDNS1123Label(p.Name); len(wrong) > 0 {
		w.At(check.At{}.Dot("metadata.name"),
			"this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: %v", wrong)
	}
	w.Add(podspec.Pod(p, nil).Warn(check.At{})...)
	return w
}

// fromAnnotation reports whether the profile of c is the one that the
// annotation names, as after preparePod.
func fromAnnotation(c *corev1.Container, text string) bool {
	return c.SecurityContext != nil && reflect.DeepEqual(c.SecurityContext.AppArmorProfile, podspec.AppArmorProfile(text))
}

// podGrace is no time at all for a pod that runs nowhere.
func podGrace(p *corev1.Pod, asked *int64) int64 {
	grace := meta.Deref(asked, meta.Deref(p.Spec.TerminationGracePeriodSeconds, 0))
	switch {
	case p.Spec.NodeName == "", p.Status.Phase == corev1.PodFailed, p.Status.Phase == corev1.PodSucceeded:
		return 0
	case grace < 0:
		return 1
	}
	return grace
}

var bindings = apis.Define(apis.Resource[*corev1.Binding]{
	Plural:   "bindings",
	Verbs:    []string{"create"},
	Validate: func(b, _ *corev1.Binding) field.ErrorList { return ValidateBinding(b) },
})

// ValidateBinding checks a binding, be it for the pod of its name or for the
// one whose subresource is asked.
func ValidateBinding(b *corev1.Binding) field.ErrorList {
	at := check.New().Dot("target")
	if b.Target.Kind != "" {
		check.OneOf(at.Dot("kind"), b.Target.Kind, "Node", "<empty>")
	}
	at.Dot("name").Present(b.Target.Name)
	return at.Errors()
}
