package meta

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"

	"github.com/knarr-dev/knarr/apis/check"
)

var oldNodeLabels = map[string]string{
	"beta.kubernetes.io/arch":                       `deprecated since v1.14; use "kubernetes.io/arch" instead`,
	"beta.kubernetes.io/os":                         `deprecated since v1.14; use "kubernetes.io/os" instead`,
	"failure-domain.beta.kubernetes.io/region":      `deprecated since v1.17; use "topology.kubernetes.io/region" instead`,
	"failure-domain.beta.kubernetes.io/zone":        `deprecated since v1.17; use "topology.kubernetes.io/zone" instead`,
	"beta.kubernetes.io/instance-type":              `deprecated since v1.17; use "node.kubernetes.io/instance-type" instead`,
	"app.kubernetes.io/created-by":                  `deprecated since v1.9`,
	"scheduler.alpha.kubernetes.io/preferAvoidPods": `deprecated since v1.22; use Taints and Tolerations instead`,
	"node-role.kubernetes.io/master":                `use "node-role.kubernetes.io/control-plane" instead`,
}

// OldNodeLabel tells what to use rather than a label of nodes, empty where it is good.
func OldNodeLabel(key string) string { return oldNodeLabels[key] }

// WarnNodeSelectorTerm warns of labels that are deprecated and, where they are
// not wrong, of values that no label has.
func WarnNodeSelectorTerm(w *check.Warnings, at check.At, t *corev1.NodeSelectorTerm, values bool) {
	for i, e := range t.MatchExpressions {
		at := at.Dot("matchExpressions").Index(i)
		if instead := OldNodeLabel(e.Key); instead != "" {
			w.At(at.Dot("key"), "%s is %s", e.Key, instead)
		}
		if !values {
			continue
		}
		for j, v := range e.Values {
			for _, wrong := range utilvalidation.IsValidLabelValue(v) {
				w.At(at.Dot("values").Index(j), "%s is invalid, %s", v, wrong)
			}
		}
	}
}

// WarnSelector warns of labels of nodes that are deprecated.
func WarnSelector(w *check.Warnings, at check.At, s *metav1.LabelSelector) {
	if s == nil {
		return
	}
	for i, e := range s.MatchExpressions {
		if instead := OldNodeLabel(e.Key); instead != "" {
			w.At(at.Dot("matchExpressions").Index(i).Dot("key"), "%s is %s", e.Key, instead)
		}
	}
	for key := range check.Sorted(s.MatchLabels) {
		if instead := OldNodeLabel(key); instead != "" {
			w.At(at.Dot("matchLabels").Dot(key), "%s", instead)
		}
	}
}

// WarnPodNames warns of a name that will be part of the names of pods and yet
// is no label.
func WarnPodNames(w *check.Warnings, name string) {
	if wrong := utilvalidation.IsDNS1123Label(name); len(wrong) > 0 {
		w.Add(fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; "+
			"a DNS label is recommended: %v", wrong))
	}
}

// WarnFraction warns of an amount of bytes that is no whole number.
func WarnFraction(w *check.Warnings, at check.At, list corev1.ResourceList, name corev1.ResourceName) {
	if q, ok := list[name]; ok && fractional(q) {
		w.At(at.Key(string(name)), "fractional byte value %q is invalid, must be an integer", q.String())
	}
}

func fractional(q resource.Quantity) bool { return q.MilliValue()%1000 != 0 }

// WarnIP warns of an address that is not in its one proper form.
func WarnIP(w *check.Warnings, at check.At, ip string) {
	w.Add(utilvalidation.GetWarningsForIP(at.Path(), ip)...)
}

// WarnCIDR warns of a range of addresses that is not in its one proper form.
func WarnCIDR(w *check.Warnings, at check.At, cidr string) {
	w.Add(utilvalidation.GetWarningsForCIDR(at.Path(), cidr)...)
}
