package sub

import (
	"fmt"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// invalidReview is the error of a review that asks nothing sensible. As
// upstream: it does not name its kind.
func invalidReview(errs field.ErrorList) error {
	return apierrors.NewInvalid(schema.GroupKind{Group: authorizationv1.GroupName}, "", errs)
}

// bare checks that there is nothing in metadata that a review has no use for.
func bare(meta metav1.ObjectMeta, text string) field.ErrorList {
	rest := meta
	rest.ManagedFields = nil
	if apiequality.Semantic.DeepEqual(metav1.ObjectMeta{}, rest) {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata"), meta, text)}
}

func checkAccess(s *authorizationv1.SubjectAccessReviewSpec) field.ErrorList {
	errs := checkAttributes(s.ResourceAttributes, s.NonResourceAttributes)
	if s.User == "" && len(s.Groups) == 0 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "user"), s.User, "at least one of user or group must be specified"))
	}
	return append(errs, checkSelectors(s.ResourceAttributes)...)
}

func checkAttributes(a *authorizationv1.ResourceAttributes, n *authorizationv1.NonResourceAttributes) field.ErrorList {
	spec := field.NewPath("spec")
	switch {
	case a != nil && n != nil:
		return field.ErrorList{field.Invalid(spec.Child("nonResourceAttributes"), n, "cannot be specified in combination with resourceAttributes")}
	case a == nil && n == nil:
		return field.ErrorList{field.Invalid(spec.Child("resourceAttributes"), n, "exactly one of nonResourceAttributes or resourceAttributes must be specified")}
	}
	return nil
}

func checkSelectors(a *authorizationv1.ResourceAttributes) (errs field.ErrorList) {
	if a == nil {
		return nil
	}
	path := field.NewPath("spec.resourceAttributes")
	if s := a.FieldSelector; s != nil {
		at := path.Child("fieldSelector")
		errs = append(errs, checkSelector(at, s.RawSelector, len(s.Requirements))...)
		opts := metav1validation.FieldSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}
		for i, r := range s.Requirements {
			errs = append(errs, metav1validation.ValidateFieldSelectorRequirement(r, opts, at.Child("requirements").Index(i))...)
		}
	}
	if s := a.LabelSelector; s != nil {
		at := path.Child("labelSelector")
		errs = append(errs, checkSelector(at, s.RawSelector, len(s.Requirements))...)
		opts := metav1validation.LabelSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}
		for i, r := range s.Requirements {
			errs = append(errs, metav1validation.ValidateLabelSelectorRequirement(r, opts, at.Child("requirements").Index(i))...)
		}
	}
	return errs
}

func checkSelector(at *field.Path, raw string, requirements int) field.ErrorList {
	switch {
	case raw != "" && requirements > 0:
		return field.ErrorList{field.Invalid(at.Child("rawSelector"), raw, "may not specified at the same time as requirements")}
	case raw == "" && requirements == 0:
		return field.ErrorList{field.Required(at.Child("requirements"), fmt.Sprintf("when %s is specified, requirements or rawSelector is required", at))}
	}
	return nil
}

// fieldSelector is the text of a selector. What of it is not understood is
// left out, which asks for more than was meant and so allows no more, and told.
func fieldSelector(s *authorizationv1.FieldSelectorAttributes) (text, fault string) {
	if s == nil {
		return "", ""
	}
	if s.RawSelector != "" {
		if _, err := fields.ParseSelector(s.RawSelector); err != nil {
			return "", "spec.resourceAttributes.fieldSelector ignored due to parse error"
		}
		return s.RawSelector, ""
	}
	var parts []string
	for _, r := range s.Requirements {
		value := ""
		if len(r.Values) == 1 {
			value = fields.EscapeValue(r.Values[0])
		}
		switch {
		case len(r.Values) == 1 && r.Operator == metav1.FieldSelectorOpIn:
			parts = append(parts, r.Key+"="+value)
		case len(r.Values) == 1 && r.Operator == metav1.FieldSelectorOpNotIn:
			parts = append(parts, r.Key+"!="+value)
		default:
			fault = "spec.resourceAttributes.fieldSelector partially ignored due to parse error"
		}
	}
	if fault != "" && len(parts) == 0 {
		fault = "spec.resourceAttributes.fieldSelector ignored due to parse error"
	}
	return strings.Join(parts, ","), fault
}

// labelSelector is as fieldSelector.
func labelSelector(s *authorizationv1.LabelSelectorAttributes) (text, fault string) {
	if s == nil {
		return "", ""
	}
	if s.RawSelector != "" {
		if _, err := labels.Parse(s.RawSelector); err != nil {
			return "", "spec.resourceAttributes.labelSelector ignored due to parse error"
		}
		return s.RawSelector, ""
	}
	var parts []string
	for _, r := range s.Requirements {
		sel, err := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{r}})
		if err != nil {
			fault = "spec.resourceAttributes.labelSelector partially ignored due to parse error"
			continue
		}
		parts = append(parts, sel.String())
	}
	if fault != "" && len(parts) == 0 {
		fault = "spec.resourceAttributes.labelSelector ignored due to parse error"
	}
	return strings.Join(parts, ","), fault
}
