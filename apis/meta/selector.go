package meta

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"

	"github.com/knarr-dev/knarr/apis/check"
)

// Selector demands a label selector that can be evaluated. Where lenient,
// values are not looked at, for the sake of what was stored before they were.
func Selector(at check.At, s *metav1.LabelSelector, lenient bool) {
	opts := metavalidation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: lenient}
	at.Add(metavalidation.ValidateLabelSelector(s, opts, at.Path())...)
}

// Labels demands labels, or a selector in the form of labels.
func Labels(at check.At, labels map[string]string) {
	at.Add(metavalidation.ValidateLabels(labels, at.Path())...)
}

// LabelName demands the key of a label.
func LabelName(at check.At, name string) {
	at.Add(metavalidation.ValidateLabelName(name, at.Path())...)
}

// NodeSelector demands at least one term that can be evaluated.
func NodeSelector(at check.At, s *corev1.NodeSelector, lenient bool) {
	terms := at.Dot("nodeSelectorTerms")
	if len(s.NodeSelectorTerms) == 0 {
		terms.Required("must have at least one node selector term")
	}
	for i := range s.NodeSelectorTerms {
		NodeSelectorTerm(terms.Index(i), &s.NodeSelectorTerms[i], lenient)
	}
}

// NodeSelectorTerm demands requirements that can be evaluated. Where lenient,
// the values of labels are not looked at.
func NodeSelectorTerm(at check.At, t *corev1.NodeSelectorTerm, lenient bool) {
	for i, r := range t.MatchExpressions {
		at := at.Dot("matchExpressions").Index(i)
		switch r.Operator {
		case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
			if len(r.Values) == 0 {
				at.Dot("values").Required("must be specified when `operator` is 'In' or 'NotIn'")
			}
		case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
			if len(r.Values) > 0 {
				at.Dot("values").Forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
			}
		case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
			if len(r.Values) != 1 {
				at.Dot("values").Required("must be specified single value when `operator` is 'Lt' or 'Gt'")
			}
		default:
			at.Dot("operator").Invalid(r.Operator, "not a valid selector operator")
		}
		LabelName(at.Dot("key"), r.Key)
		if !lenient {
			for j, v := range r.Values {
				at.Dot("values").Index(j).Wrong(v, utilvalidation.IsValidLabelValue(v))
			}
		}
	}
	for i, r := range t.MatchFields {
		nodeField(at.Dot("matchFields").Index(i), r)
	}
}

// nodeField demands one name of a node: no other field is selected by.
func nodeField(at check.At, r corev1.NodeSelectorRequirement) {
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) != 1 {
			at.Dot("values").Required("must be only one value when `operator` is 'In' or 'NotIn' for node field selector")
		}
	default:
		at.Dot("operator").Invalid(r.Operator, "not a valid selector operator")
	}
	if r.Key != metav1.ObjectNameField {
		at.Dot("key").Invalid(r.Key, "not a valid field selector key")
		return
	}
	for i, v := range r.Values {
		at.Dot("values").Index(i).Wrong(v, validation.NameIsDNSSubdomain(v, false))
	}
}
