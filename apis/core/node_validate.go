package core

import (
	"encoding/json"
	"maps"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/podspec"
)

func defaultNode(n *corev1.Node) {
	if len(n.Status.Allocatable) == 0 && n.Status.Capacity != nil {
		n.Status.Allocatable = maps.Clone(n.Status.Capacity)
	}
	meta.RoundUp(n.Status.Capacity)
	meta.RoundUp(n.Status.Allocatable)
	// Two names of one range: where they differ the older wins.
	if s := &n.Spec; s.PodCIDR != "" && (len(s.PodCIDRs) == 0 || s.PodCIDRs[0] != s.PodCIDR) {
		s.PodCIDRs = []string{s.PodCIDR}
	} else if len(s.PodCIDRs) > 0 {
		s.PodCIDR = s.PodCIDRs[0]
	}
}

// prepareNode keeps the status of an update; a kubelet creates its node with
// one. What configured kubelets once is dropped.
func prepareNode(n, old *corev1.Node) {
	if old == nil {
		n.Spec.ConfigSource, n.Status.Config = nil, nil //nolint:staticcheck // clients may still send it
		return
	}
	n.Status = old.Status
	if old.Spec.ConfigSource == nil { //nolint:staticcheck // as above
		n.Spec.ConfigSource = nil //nolint:staticcheck // as above
	}
}

func prepareNodeStatus(n, old *corev1.Node) {
	if old.Status.Config == nil {
		n.Status.Config = nil
	}
}

func validateNode(n, old *corev1.Node) field.ErrorList {
	at := check.New()
	nodeRules(at, n)
	if s := n.Status.NodeInfo.Swap; s != nil && s.Capacity != nil {
		check.Positive(at.Dot("metadata.nodeSwapStatus.capacity"), *s.Capacity) // as upstream: not the field's name
	}
	ranges := at.Dot("spec.podCIDRs")
	for i, r := range n.Spec.PodCIDRs {
		meta.CIDR(ranges.Index(i), r)
	}
	meta.DualStackCIDRs(ranges, n.Spec.PodCIDRs)
	if old != nil {
		nodeChanges(at, n, old)
	}
	return at.Errors()
}

func validateNodeStatus(n, old *corev1.Node) field.ErrorList {
	at := check.New()
	nodeRules(at, n)
	nodeChanges(at, n, old)
	return at.Errors()
}

// nodeRules are what holds for a node at all times.
func nodeRules(at check.At, n *corev1.Node) {
	const key = "scheduler.alpha.kubernetes.io/taints"
	if text, annotations := n.Annotations[key], at.Dot("metadata.annotations"); text != "" {
		var all []corev1.Taint
		if err := json.Unmarshal([]byte(text), &all); err != nil {
			annotations.Invalid(key, err.Error())
		}
		taints(annotations.Dot(key), all)
	}
	taints(at.Dot("metadata.taints"), n.Spec.Taints) // as upstream: not the field's name
	for name, q := range check.Sorted(n.Status.Capacity) {
		meta.Quantity(at.Dot("status.capacity").Dot(string(name)), name, q)
	}
	for name, q := range check.Sorted(n.Status.Allocatable) {
		meta.Quantity(at.Dot("status.allocatable").Dot(string(name)), name, q)
	}
	features(at.Dot("status.declaredFeatures"), n.Status.DeclaredFeatures)
}

func taints(at check.At, all []corev1.Taint) {
	type pair struct {
		effect corev1.TaintEffect
		key    string
	}
	seen := check.Set[pair]{}
	for i, t := range all {
		at := at.Index(i)
		meta.LabelName(at.Dot("key"), t.Key)
		if wrong := utilvalidation.IsValidLabelValue(t.Value); len(wrong) > 0 {
			at.Dot("value").Invalid(t.Value, strings.Join(wrong, ";"))
		}
		if at.Dot("effect").Present(string(t.Effect)) {
			podspec.TaintEffect(at.Dot("effect"), t.Effect)
		}
		if seen.Twice(pair{t.Effect, t.Key}) {
			at.Duplicate(check.Bare(t))
			at.Explain("taints must be unique by key and effect pair")
		}
	}
}

var featureName = regexp.MustCompile(`^[A-Z][a-zA-Z0-9]*(\/[a-zA-Z][a-zA-Z0-9]*)*$`)

// features demands names of features, sorted and each once.
func features(at check.At, names []string) {
	for i, name := range names {
		wrong := `invalid feature name "` + name + `": `
		if len(name) > utilvalidation.DNS1123SubdomainMaxLength {
			at.Index(i).Invalid(name, wrong+"must be no more than 253 characters")
		} else if !featureName.MatchString(name) {
			at.Index(i).Invalid(name, wrong+"must start with an UpperCamelCase segment, with subsequent segments separated by '/' "+
				"(e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes")
		}
		if i+1 == len(names) {
			break
		}
		switch next := names[i+1]; {
		case name == next:
			at.Index(i + 1).Duplicate(next)
		case name > next:
			at.Index(i+1).Invalid(next, "list must be sorted alphabetically")
		}
	}
}

// nodeChanges are what may change in a node that is there.
func nodeChanges(at check.At, n, old *corev1.Node) {
	spec := at.Dot("spec")
	seen := check.Set[corev1.NodeAddress]{}
	for i, a := range n.Status.Addresses {
		if seen.Twice(a) {
			at.Dot("status.addresses").Index(i).Duplicate(check.Bare(a))
		}
	}
	if was, now := old.Spec.PodCIDRs, n.Spec.PodCIDRs; len(was) > 0 {
		const detail = `node updates may not change podCIDR except from "" to valid`
		if len(was) != len(now) {
			spec.Dot("podCIDRs").Forbidden(detail)
		} else {
			for i := range was {
				if was[i] != now[i] {
					spec.Dot("podCIDRs").Forbidden(detail)
				}
			}
		}
	}
	if old.Spec.ProviderID != "" && old.Spec.ProviderID != n.Spec.ProviderID {
		spec.Dot("providerID").Forbidden(`node updates may not change providerID except from "" to valid`)
	}
	if n.Spec.DoNotUseExternalID != old.Spec.DoNotUseExternalID {
		spec.Dot("externalID").Forbidden("may not be updated")
	}
}

func warnNode(n, _ *corev1.Node) []string {
	var w check.Warnings
	if n.Spec.ConfigSource != nil { //nolint:staticcheck // clients may still send it
		w.Add("spec.configSource: the feature is removed")
	}
	if n.Spec.DoNotUseExternalID != "" {
		w.Add("spec.externalID: this field is deprecated, and is unused by Kubernetes")
	}
	for i, r := range n.Spec.PodCIDRs {
		meta.WarnCIDR(&w, check.At{}.Dot("spec.podCIDRs").Index(i), r)
	}
	return w
}
