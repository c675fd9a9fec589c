package apiextensions

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	schemavalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/knarr-dev/knarr/apis"
)

var customResourceDefinitions = apis.Define(apis.Resource[*apiextensionsv1.CustomResourceDefinition]{
	Plural:     "customresourcedefinitions",
	Short:      []string{"crd", "crds"},
	Categories: []string{"api-extensions"},
	Scope:      apis.Cluster,
	StoredAt:   "apiextensions.k8s.io/customresourcedefinitions",

	Default:  apiextensionsv1.SetObjectDefaults_CustomResourceDefinition,
	Prepare:  prepareCRD,
	Validate: validateCRD,
	Warn:     warnCRD,
	Name:     func(string, bool) []string { return nil }, // validation holds it to the names in the spec
	Spec:     func(c *apiextensionsv1.CustomResourceDefinition) any { return c.Spec },
	Subs: []apis.Sub[*apiextensionsv1.CustomResourceDefinition]{{
		Name: "status", Keeps: []string{"spec"},
		Prepare:  func(_, _ *apiextensionsv1.CustomResourceDefinition) {},
		Validate: validateStatus,
		Warn:     func(_, _ *apiextensionsv1.CustomResourceDefinition) []string { return nil },
	}},
	Lifetime: apis.Lifetime[*apiextensionsv1.CustomResourceDefinition]{NeedsVersion: true, Leave: leaveCRD},
})

// prepareCRD keeps the status, in which the versions stand that objects may
// have been stored in.
func prepareCRD(c, old *apiextensionsv1.CustomResourceDefinition) {
	c.Status = apiextensionsv1.CustomResourceDefinitionStatus{}
	if old != nil {
		c.Status = *old.Status.DeepCopy()
	}
	for _, v := range c.Spec.Versions {
		if v.Storage && !slices.Contains(c.Status.StoredVersions, v.Name) {
			c.Status.StoredVersions = append(c.Status.StoredVersions, v.Name)
		}
	}
}

// leaveCRD keeps a definition that was asked to go until its objects are gone.
func leaveCRD(c *apiextensionsv1.CustomResourceDefinition) {
	c.DeletionGracePeriodSeconds = nil
	if !slices.Contains(c.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer) {
		c.Finalizers = append(c.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer)
	}
	SetCondition(c, apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.Terminating, Status: apiextensionsv1.ConditionTrue, Reason: "InstanceDeletionPending",
		Message: "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
	}, *c.DeletionTimestamp)
}

// SetCondition puts a condition into the status, in the place of the one of
// its type.
func SetCondition(c *apiextensionsv1.CustomResourceDefinition, want apiextensionsv1.CustomResourceDefinitionCondition, now metav1.Time) {
	for i := range c.Status.Conditions {
		have := &c.Status.Conditions[i]
		if have.Type != want.Type {
			continue
		}
		if have.Status == want.Status && !have.LastTransitionTime.IsZero() {
			now = have.LastTransitionTime
		}
		want.LastTransitionTime = now
		*have = want
		return
	}
	want.LastTransitionTime = now
	c.Status.Conditions = append(c.Status.Conditions, want)
}

// internal is a definition as the rules of the library take it.
func internal(c *apiextensionsv1.CustomResourceDefinition) (*apiextensions.CustomResourceDefinition, error) {
	in := &apiextensions.CustomResourceDefinition{}
	err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(c.DeepCopy(), in, nil)
	return in, err
}

// held gives a rule of the library a definition and the one that it is to
// replace, nil for none.
func held(c, old *apiextensionsv1.CustomResourceDefinition, rule func(in, was *apiextensions.CustomResourceDefinition) field.ErrorList) field.ErrorList {
	in, err := internal(c)
	if err != nil {
		return field.ErrorList{field.InternalError(field.NewPath("spec"), err)}
	}
	var was *apiextensions.CustomResourceDefinition
	if old != nil {
		if was, err = internal(old); err != nil {
			return field.ErrorList{field.InternalError(field.NewPath("spec"), err)}
		}
	}
	return slices.DeleteFunc(rule(in, was), func(e *field.Error) bool {
		// What is true of the metadata of all kinds is said by those who hold all kinds to it.
		named := e.Field == "metadata.name" && e.Type != field.ErrorTypeRequired && c.Name != ""
		return strings.HasPrefix(e.Field, "metadata.") && !named && !strings.HasPrefix(e.Field, "metadata.annotations["+apiextensionsv1.KubeAPIApprovedAnnotation)
	})
}

func validateCRD(c, old *apiextensionsv1.CustomResourceDefinition) field.ErrorList {
	return held(c, old, func(in, was *apiextensions.CustomResourceDefinition) field.ErrorList {
		if was == nil {
			return validation.ValidateCustomResourceDefinition(context.Background(), in)
		}
		return validation.ValidateCustomResourceDefinitionUpdate(context.Background(), in, was)
	})
}

func validateStatus(c, old *apiextensionsv1.CustomResourceDefinition) field.ErrorList {
	return held(c, old, validation.ValidateUpdateCustomResourceDefinitionStatus)
}

// warnCRD tells of formats that nothing is held to, once.
func warnCRD(c, old *apiextensionsv1.CustomResourceDefinition) (texts []string) {
	known := map[string]bool{}
	if old != nil {
		for _, f := range unknownFormats(old) {
			known[f] = true
		}
	}
	for _, f := range unknownFormats(c) {
		if !known[f] {
			texts = append(texts, fmt.Sprintf("unrecognized format %q", f))
		}
	}
	return texts
}

func unknownFormats(c *apiextensionsv1.CustomResourceDefinition) (names []string) {
	for _, v := range c.Spec.Versions {
		if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
			continue
		}
		var in apiextensions.JSONSchemaProps
		if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v.Schema.OpenAPIV3Schema.DeepCopy(), &in, nil); err != nil {
			continue // it is not valid, and was refused
		}
		validation.SchemaHas(&in, func(s *apiextensions.JSONSchemaProps) bool {
			if s.Format != "" {
				typed := &spec.Schema{SchemaProps: spec.SchemaProps{Format: s.Format, Type: []string{s.Type}}}
				names = append(names, schemavalidation.GetUnrecognizedFormats(typed, environment.DefaultCompatibilityVersion())...)
			}
			return false
		})
	}
	return names
}
