package podspec

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

func (s Subject) affinity(at check.At) {
	a := s.Spec.Affinity
	if a == nil {
		return
	}
	if n := a.NodeAffinity; n != nil {
		at := at.Dot("nodeAffinity")
		if n.RequiredDuringSchedulingIgnoredDuringExecution != nil {
			lenient := s.had(func(at check.At, spec *corev1.PodSpec) { nodeAffinityValues(at, spec.Affinity) })
			meta.NodeSelector(at.Dot("requiredDuringSchedulingIgnoredDuringExecution"), n.RequiredDuringSchedulingIgnoredDuringExecution, lenient)
		}
		for i, t := range n.PreferredDuringSchedulingIgnoredDuringExecution {
			at := at.Dot("preferredDuringSchedulingIgnoredDuringExecution").Index(i)
			weight(at, t.Weight)
			meta.NodeSelectorTerm(at.Dot("preference"), &t.Preference, true)
		}
	}
	lenient := s.had(func(at check.At, spec *corev1.PodSpec) { affinitySelectors(at, spec.Affinity) })
	if p := a.PodAffinity; p != nil {
		podTerms(at.Dot("podAffinity"), p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution, lenient)
	}
	if p := a.PodAntiAffinity; p != nil {
		podTerms(at.Dot("podAntiAffinity"), p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution, lenient)
	}
}

func weight(at check.At, n int32) {
	if n <= 0 || n > 100 {
		at.Dot("weight").Invalid(n, "must be in the range 1-100")
	}
}

func podTerms(at check.At, required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm, lenient bool) {
	for i := range required {
		podTerm(at.Dot("requiredDuringSchedulingIgnoredDuringExecution").Index(i), &required[i], lenient)
	}
	for i, t := range preferred {
		at := at.Dot("preferredDuringSchedulingIgnoredDuringExecution").Index(i)
		weight(at, t.Weight)
		podTerm(at.Dot("podAffinityTerm"), &t.PodAffinityTerm, lenient)
	}
}

func podTerm(at check.At, t *corev1.PodAffinityTerm, lenient bool) {
	meta.Selector(at.Dot("labelSelector"), t.LabelSelector, lenient)
	meta.Selector(at.Dot("namespaceSelector"), t.NamespaceSelector, lenient)
	for _, ns := range t.Namespaces {
		meta.Namespace(at.Dot("namespace"), ns)
	}
	matchKeys(at, t.MatchLabelKeys, t.MismatchLabelKeys, t.LabelSelector)
	if t.TopologyKey == "" {
		at.Dot("topologyKey").Required("can not be empty")
	}
	meta.LabelName(at.Dot("topologyKey"), t.TopologyKey)
}

// affinitySelectors finds values that labels cannot have.
func affinitySelectors(at check.At, a *corev1.Affinity) {
	if a == nil {
		return
	}
	one := func(t *corev1.PodAffinityTerm) {
		meta.Selector(at, t.LabelSelector, false)
		meta.Selector(at, t.NamespaceSelector, false)
	}
	all := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		for i := range required {
			one(&required[i])
		}
		for i := range preferred {
			one(&preferred[i].PodAffinityTerm)
		}
	}
	if p := a.PodAffinity; p != nil {
		all(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if p := a.PodAntiAffinity; p != nil {
		all(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}

// nodeAffinityValues finds values that labels cannot have.
func nodeAffinityValues(at check.At, a *corev1.Affinity) {
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return
	}
	for _, t := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, r := range t.MatchExpressions {
			for _, v := range r.Values {
				at.Wrong(v, utilvalidation.IsValidLabelValue(v))
			}
		}
	}
}

// matchKeys demands keys of labels that add to a selector what is not in it.
func matchKeys(at check.At, match, mismatch []string, s *metav1.LabelSelector) {
	keys := func(at check.At, keys []string) {
		if len(keys) > 0 && s == nil {
			at.Forbidden("must not be specified when labelSelector is not set")
			return
		}
		for i, key := range keys {
			meta.LabelName(at.Index(i), key)
		}
	}
	keys(at.Dot("matchLabelKeys"), match)
	keys(at.Dot("mismatchLabelKeys"), mismatch)
	if s != nil {
		seen := check.Set[string]{}
		for key := range s.MatchLabels {
			seen[key] = true
		}
		for _, e := range s.MatchExpressions {
			if i := lastIndex(match, e.Key); seen.Twice(e.Key) && i >= 0 {
				at.Index(i).Invalid(e.Key, "exists in both matchLabelKeys and labelSelector")
			}
		}
	}
	for i, key := range match {
		if slices.Contains(mismatch, key) {
			at.Dot("matchLabelKeys").Index(i).Invalid(key, "exists in both matchLabelKeys and mismatchLabelKeys")
		}
	}
}

func lastIndex(all []string, s string) int {
	for i, one := range slices.Backward(all) {
		if one == s {
			return i
		}
	}
	return -1
}

func (s Subject) tolerations(at check.At) { tolerations(at, s.Spec.Tolerations) }

func tolerations(at check.At, all []corev1.Toleration) {
	for i, t := range all {
		at := at.Index(i)
		operator := at.Dot("operator")
		if t.Key != "" {
			meta.LabelName(at.Dot("key"), t.Key)
		} else if t.Operator != corev1.TolerationOpExists {
			operator.Invalid(t.Operator, "operator must be Exists when `key` is empty, which means \"match all values and all keys\"")
		}
		if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
			at.Dot("effect").Invalid(t.Effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
		}
		switch t.Operator {
		case corev1.TolerationOpEqual, "":
			if wrong := utilvalidation.IsValidLabelValue(t.Value); len(wrong) > 0 {
				operator.Invalid(t.Value, strings.Join(wrong, ";"))
			}
		case corev1.TolerationOpExists:
			if t.Value != "" {
				operator.Invalid(t.Value, "value must be empty when `operator` is 'Exists'")
			}
		case corev1.TolerationOpLt, corev1.TolerationOpGt:
			// As upstream: unknown yet, and told among those that are not.
			check.Unsupported(operator, t.Operator, corev1.TolerationOpEqual, corev1.TolerationOpExists, corev1.TolerationOpLt, corev1.TolerationOpGt)
		default:
			check.Listed(operator, t.Operator, corev1.TolerationOpEqual, corev1.TolerationOpExists)
		}
		if t.Effect != "" {
			TaintEffect(at.Dot("effect"), t.Effect)
		}
	}
}

// TaintEffect demands an effect that taints have.
func TaintEffect(at check.At, e corev1.TaintEffect) {
	check.Listed(at, e, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)
}

func tolerationsAnnotation(at check.At, text string) {
	if text == "" {
		return
	}
	var all []corev1.Toleration
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		at.Invalid(corev1.TolerationsAnnotationKey, err.Error())
		return
	}
	tolerations(at.Dot(corev1.TolerationsAnnotationKey), all)
}

// OnlyAdded demands that a pod keeps the tolerations it had, but for how long
// they last.
func OnlyAdded(at check.At, now, was []corev1.Toleration) {
	for _, old := range was {
		kept := slices.ContainsFunc(now, func(t corev1.Toleration) bool {
			return t.Key == old.Key && t.Operator == old.Operator && t.Value == old.Value && t.Effect == old.Effect
		})
		if !kept {
			at.Forbidden("existing toleration can not be modified except its tolerationSeconds")
			return
		}
	}
	tolerations(at, now)
}

func (s Subject) spread(at check.At) {
	lenient := s.had(func(at check.At, spec *corev1.PodSpec) {
		for _, c := range spec.TopologySpreadConstraints {
			meta.Selector(at, c.LabelSelector, false)
		}
	})
	all := s.Spec.TopologySpreadConstraints
	for i, c := range all {
		at := at.Index(i)
		check.Positive(at.Dot("maxSkew"), c.MaxSkew)
		if c.TopologyKey == "" {
			at.Dot("topologyKey").Required("can not be empty")
		}
		check.OneOf(at.Dot("whenUnsatisfiable"), c.WhenUnsatisfiable, corev1.DoNotSchedule, corev1.ScheduleAnyway)
		if slices.ContainsFunc(all[i+1:], func(o corev1.TopologySpreadConstraint) bool {
			return o.TopologyKey == c.TopologyKey && o.WhenUnsatisfiable == c.WhenUnsatisfiable
		}) {
			at.Dot("{topologyKey, whenUnsatisfiable}").Duplicate(fmt.Sprintf("{%v, %v}", c.TopologyKey, c.WhenUnsatisfiable))
		}
		if n := c.MinDomains; n != nil {
			check.Positive(at.Dot("minDomains"), *n)
			if c.WhenUnsatisfiable != corev1.DoNotSchedule {
				at.Dot("minDomains").Invalid(*n, fmt.Sprintf("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not %s", c.WhenUnsatisfiable))
			}
		}
		inclusion(at.Dot("nodeAffinityPolicy"), c.NodeAffinityPolicy)
		inclusion(at.Dot("nodeTaintsPolicy"), c.NodeTaintsPolicy)
		if s.had(spreadKeys) {
			onlySpreadKeys(at.Dot("matchLabelKeys"), &c)
		} else {
			matchKeys(at, c.MatchLabelKeys, nil, c.LabelSelector)
		}
		if !lenient {
			meta.Selector(at.Dot("labelSelector"), c.LabelSelector, false)
		}
	}
}

func inclusion(at check.At, p *corev1.NodeInclusionPolicy) {
	if p != nil {
		check.OneOf(at, *p, corev1.NodeInclusionPolicyIgnore, corev1.NodeInclusionPolicyHonor)
	}
}

// spreadKeys finds constraints that were made before their keys were merged
// into their selectors.
func spreadKeys(at check.At, spec *corev1.PodSpec) {
	for _, c := range spec.TopologySpreadConstraints {
		matchKeys(at, c.MatchLabelKeys, nil, c.LabelSelector)
	}
}

func onlySpreadKeys(at check.At, c *corev1.TopologySpreadConstraint) {
	if len(c.MatchLabelKeys) == 0 {
		return
	}
	if c.LabelSelector == nil {
		at.Forbidden("must not be specified when labelSelector is not set")
	}
	for i, key := range c.MatchLabelKeys {
		meta.LabelName(at.Index(i), key)
		if c.LabelSelector == nil {
			continue
		}
		_, labelled := c.LabelSelector.MatchLabels[key]
		if labelled || slices.ContainsFunc(c.LabelSelector.MatchExpressions, func(e metav1.LabelSelectorRequirement) bool { return e.Key == key }) {
			at.Index(i).Invalid(key, "exists in both matchLabelKeys and labelSelector")
		}
	}
}
