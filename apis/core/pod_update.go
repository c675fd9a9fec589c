package core

import (
	"fmt"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/podspec"
)

// podChanges are what may change in a pod that is there.
func podChanges(at check.At, p, old *corev1.Pod) {
	annotationChanges(at.Dot("metadata.annotations"), p, old)
	spec := at.Dot("spec")
	if !imageChanges(spec.Dot("containers"), p.Spec.Containers, old.Spec.Containers) ||
		!imageChanges(spec.Dot("initContainers"), p.Spec.InitContainers, old.Spec.InitContainers) {
		return
	}
	deadlineChange(spec.Dot("activeDeadlineSeconds"), p.Spec.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds)
	podspec.OnlyAdded(spec.Dot("tolerations"), p.Spec.Tolerations, old.Spec.Tolerations)
	for i, gate := range p.Spec.SchedulingGates {
		if !slices.Contains(old.Spec.SchedulingGates, gate) {
			spec.Dot("schedulingGates").Index(i).Dot("name").
				Forbidden(fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", gate.Name))
		}
	}
	if apis.Equal(&p.Spec, &old.Spec) {
		return
	}
	// What may change is put back; nothing else may differ then.
	rest := p.Spec.DeepCopy()
	for i := range rest.Containers {
		rest.Containers[i].Image = old.Spec.Containers[i].Image
	}
	for i := range rest.InitContainers {
		rest.InitContainers[i].Image = old.Spec.InitContainers[i].Image
	}
	rest.ActiveDeadlineSeconds = old.Spec.ActiveDeadlineSeconds
	rest.SchedulingGates = old.Spec.SchedulingGates
	rest.Tolerations = old.Spec.Tolerations
	if meta.Deref(old.Spec.TerminationGracePeriodSeconds, 0) < 0 && meta.Deref(rest.TerminationGracePeriodSeconds, 0) == 1 {
		rest.TerminationGracePeriodSeconds = old.Spec.TerminationGracePeriodSeconds
	}
	if len(old.Spec.SchedulingGates) > 0 {
		gatedChanges(spec, rest, &old.Spec)
	}
	if !apis.Equal(rest, &old.Spec) {
		spec.Forbidden("pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`," +
			"`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations)," +
			"`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n" + meta.Diff(old.Spec, *rest))
	}
}

// annotationChanges forbids to change what a pod is by its annotations.
func annotationChanges(at check.At, p, old *corev1.Pod) {
	for _, side := range []struct {
		now, was       map[string]string
		armour, mirror string
	}{
		{p.Annotations, old.Annotations, "may not remove or update AppArmor annotations", "may not remove or update mirror pod annotation"},
		{old.Annotations, p.Annotations, "may not add AppArmor annotations", "may not add mirror pod annotation"},
	} {
		removal := strings.Contains(side.armour, "remove")
		for key, value := range check.Sorted(side.was) {
			now, has := side.now[key]
			if has && (!removal || now == value) {
				continue
			}
			if strings.HasPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix) {
				at.Key(key).Forbidden(side.armour)
			}
			if key == corev1.MirrorPodAnnotationKey {
				at.Key(key).Forbidden(side.mirror)
			}
		}
	}
	podspec.Pod(p, old).Annotations(at)
}

// imageChanges demands an image of each container, and that there are as many
// containers as before.
func imageChanges(at check.At, now, was []corev1.Container) bool {
	if len(now) != len(was) {
		at.Forbidden("pod updates may not add or remove containers")
		return false
	}
	for i, c := range now {
		at.Index(i).Dot("image").Present(c.Image)
		if strings.TrimSpace(c.Image) != c.Image {
			at.Index(i).Dot("image").Invalid(c.Image, "must not have leading or trailing whitespace")
		}
	}
	return true
}

func deadlineChange(at check.At, now, was *int64) {
	switch {
	case now == nil && was != nil:
		at.Invalid(now, "must not update from a positive integer to nil value")
	case now == nil:
	case *now < 0 || *now > math.MaxInt32:
		at.Invalid(*now, utilvalidation.InclusiveRangeError(0, math.MaxInt32))
	}
	if now != nil && was != nil && *was < *now {
		at.Invalid(*now, "must be less than or equal to previous value")
	}
}

// gatedChanges lets the choice of nodes for a pod that waits at a gate become
// narrower. What it judges it puts back into rest.
func gatedChanges(at check.At, rest, old *corev1.PodSpec) {
	for key, value := range old.NodeSelector {
		if now, ok := rest.NodeSelector[key]; !ok || now != value {
			at.Dot("nodeSelector").Invalid(rest.NodeSelector, "only additions to spec.nodeSelector are allowed (no mutations or deletions)")
		}
	}
	rest.NodeSelector = old.NodeSelector
	var now, was *corev1.NodeAffinity
	if rest.Affinity != nil {
		now = rest.Affinity.NodeAffinity
	}
	if old.Affinity != nil {
		was = old.Affinity.NodeAffinity
	}
	if equality.Semantic.DeepEqual(now, was) {
		return
	}
	narrower(at.Dot("affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"), nodeTerms(now), nodeTerms(was))
	switch {
	case rest.Affinity == nil:
		rest.Affinity = &corev1.Affinity{NodeAffinity: was}
	case old.Affinity == nil && rest.Affinity.PodAffinity == nil && rest.Affinity.PodAntiAffinity == nil:
		rest.Affinity = nil
	default:
		rest.Affinity.NodeAffinity = was
	}
}

func nodeTerms(a *corev1.NodeAffinity) []corev1.NodeSelectorTerm {
	if a == nil || a.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil
	}
	return a.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
}

// narrower demands the terms that there were, each with what it had and perhaps more.
func narrower(at check.At, now, was []corev1.NodeSelectorTerm) {
	if len(was) > 0 && len(now) != len(was) {
		at.Invalid(check.Bare(now), "no additions/deletions to non-empty NodeSelectorTerms list are allowed")
		return
	}
	extends := func(now, was []corev1.NodeSelectorRequirement) bool {
		return len(now) >= len(was) && equality.Semantic.DeepEqual(now[:len(was)], was)
	}
	for i, t := range was {
		empty := len(t.MatchExpressions) == 0 && len(t.MatchFields) == 0
		grown := len(now[i].MatchExpressions) > 0 || len(now[i].MatchFields) > 0
		if empty && grown || !extends(now[i].MatchExpressions, t.MatchExpressions) || !extends(now[i].MatchFields, t.MatchFields) {
			at.Index(i).Invalid(check.Bare(now[i]), "only additions are allowed (no mutations or deletions)")
		}
	}
}

// editEphemeralContainers carries over the containers for debugging.
func editEphemeralContainers(into, p *corev1.Pod) {
	into.Spec.EphemeralContainers = p.Spec.EphemeralContainers
}

func validateEphemeralContainers(p, old *corev1.Pod) field.ErrorList {
	at := check.New()
	podRules(at, p, old)
	annotationChanges(at.Dot("metadata.annotations"), p, old)
	if _, mirror := old.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return refusal("static pods do not support ephemeral containers")
	}
	for _, was := range old.Spec.EphemeralContainers {
		at := at.Dot("spec.ephemeralContainers")
		i := slices.IndexFunc(p.Spec.EphemeralContainers, func(c corev1.EphemeralContainer) bool { return c.Name == was.Name })
		if i < 0 {
			at.Forbidden(fmt.Sprintf("existing ephemeral containers %q may not be removed\n", was.Name))
		} else if now := p.Spec.EphemeralContainers[i]; !equality.Semantic.DeepEqual(now, was) {
			at.Forbidden(fmt.Sprintf("existing ephemeral containers %q may not be changed\n%v", was.Name, meta.Diff(was, now)))
		}
	}
	return at.Errors()
}
