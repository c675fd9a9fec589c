package crd

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	internal "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis/apiextensions"
)

// judge writes into a definition's status what follows from its spec and from
// the other definitions of its group. It is a pure function of them.
func judge(c *apiextensionsv1.CustomResourceDefinition, others []*apiextensionsv1.CustomResourceDefinition, now metav1.Time) {
	set := func(cond apiextensionsv1.CustomResourceDefinitionCondition) { apiextensions.SetCondition(c, cond, now) }
	named := names(c, others)
	set(named)
	switch {
	case apihelpers.IsCRDConditionTrue(c, apiextensionsv1.Established):
	case named.Status == apiextensionsv1.ConditionTrue && c.DeletionTimestamp == nil:
		set(apiextensionsv1.CustomResourceDefinitionCondition{
			Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionTrue, Reason: "InitialNamesAccepted",
			Message: "the initial names have been accepted",
		})
	default:
		set(apiextensionsv1.CustomResourceDefinitionCondition{
			Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionFalse, Reason: "NotAccepted",
			Message: "not all names are accepted",
		})
	}
	if cond := approval(c); cond != nil {
		set(*cond)
	}
	if cond := structural(c); cond != nil {
		set(*cond)
	} else {
		c.Status.Conditions = slices.DeleteFunc(c.Status.Conditions, func(o apiextensionsv1.CustomResourceDefinitionCondition) bool {
			return o.Type == apiextensionsv1.NonStructuralSchema
		})
	}
}

// names accepts those names of a definition that no other of its group has,
// and tells how that went.
func names(c *apiextensionsv1.CustomResourceDefinition, others []*apiextensionsv1.CustomResourceDefinition) apiextensionsv1.CustomResourceDefinitionCondition {
	resources, kinds := map[string]bool{}, map[string]bool{}
	for _, o := range others {
		if o.Spec.Group != c.Spec.Group || o.Name == c.Name {
			continue
		}
		n := o.Status.AcceptedNames
		for _, name := range append([]string{n.Plural, n.Singular}, n.ShortNames...) {
			resources[name] = true
		}
		kinds[n.Kind], kinds[n.ListKind] = true, true
	}
	cond := apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.NamesAccepted, Status: apiextensionsv1.ConditionTrue, Reason: "NoConflicts", Message: "no conflicts found",
	}
	want, have := c.Spec.Names, &c.Status.AcceptedNames
	claim := func(want string, have *string, taken map[string]bool, reason string) {
		if want != *have && taken[want] {
			cond.Status, cond.Reason, cond.Message = apiextensionsv1.ConditionFalse, reason, inUse(want)
			return
		}
		*have = want
	}
	claim(want.Plural, &have.Plural, resources, "PluralConflict")
	claim(want.Singular, &have.Singular, resources, "SingularConflict")
	if !reflect.DeepEqual(want.ShortNames, have.ShortNames) {
		var taken []string
		for _, s := range want.ShortNames {
			if !slices.Contains(have.ShortNames, s) && resources[s] {
				taken = append(taken, inUse(s))
			}
		}
		if len(taken) == 0 {
			have.ShortNames = want.ShortNames
		} else {
			cond.Status, cond.Reason, cond.Message = apiextensionsv1.ConditionFalse, "ShortNamesConflict", strings.Join(taken, ", ")
			if len(taken) > 1 {
				cond.Message = "[" + cond.Message + "]"
			}
		}
	}
	claim(want.Kind, &have.Kind, kinds, "KindConflict")
	claim(want.ListKind, &have.ListKind, kinds, "ListKindConflict")
	have.Categories = want.Categories
	return cond
}

func inUse(name string) string { return fmt.Sprintf("%q is already in use", name) }

// approval tells whether a definition in a group of the project's own was
// approved, nil where it need not be.
func approval(c *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.CustomResourceDefinitionCondition {
	if !apihelpers.IsProtectedCommunityGroup(c.Spec.Group) {
		return nil
	}
	state, text := apihelpers.GetAPIApprovalState(c.Annotations)
	cond := &apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.KubernetesAPIApprovalPolicyConformant, Status: apiextensionsv1.ConditionFalse, Message: text,
	}
	switch state {
	case apihelpers.APIApproved:
		cond.Status, cond.Reason = apiextensionsv1.ConditionTrue, "ApprovedAnnotation"
	case apihelpers.APIApprovalInvalid:
		cond.Reason = "InvalidAnnotation"
	case apihelpers.APIApprovalMissing:
		cond.Reason = "MissingAnnotation"
	case apihelpers.APIApprovalBypassed:
		cond.Reason = "UnapprovedAnnotation"
	default:
		cond.Status, cond.Reason = apiextensionsv1.ConditionUnknown, "UnknownAnnotation"
	}
	return cond
}

// structural tells what keeps a definition, one from before that was asked
// for, from having structural schemas; nil where it has them.
func structural(c *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.CustomResourceDefinitionCondition {
	cond := &apiextensionsv1.CustomResourceDefinitionCondition{Type: apiextensionsv1.NonStructuralSchema, Status: apiextensionsv1.ConditionTrue, Reason: "Violations"}
	var errs field.ErrorList
	if c.Spec.PreserveUnknownFields {
		errs = append(errs, field.Invalid(field.NewPath("spec", "preserveUnknownFields"), true, "must be false"))
	}
	for i, v := range c.Spec.Versions {
		if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
			continue
		}
		var props internal.JSONSchemaProps
		err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v.Schema.OpenAPIV3Schema.DeepCopy(), &props, nil)
		var s *structuralschema.Structural
		if err == nil {
			s, err = structuralschema.NewStructural(&props)
		}
		if err != nil {
			cond.Status, cond.Reason = apiextensionsv1.ConditionUnknown, "StructuralError"
			cond.Message = fmt.Sprintf("failed to check validation schema for version %s: %v", v.Name, err)
			return cond
		}
		errs = append(errs, structuralschema.ValidateStructural(field.NewPath("spec", "versions").Index(i).Child("schema", "openAPIV3Schema"), s)...)
	}
	if len(errs) == 0 {
		return nil
	}
	cond.Message = errs.ToAggregate().Error()
	return cond
}
