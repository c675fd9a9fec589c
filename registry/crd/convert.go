package crd

import (
	"fmt"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// A converter makes objects be of another version. It may change and keep
// what it is given.
type converter func(objs []*unstructured.Unstructured, version string) ([]*unstructured.Unstructured, error)

// A Caller calls the webhook of a definition.
type Caller func(crd *apiextensionsv1.CustomResourceDefinition, objs []*unstructured.Unstructured, apiVersion string) ([]*unstructured.Unstructured, error)

// converter is what the definition says about conversion.
func (f *family) converter(call Caller) converter {
	target := func(version string) (string, error) {
		gv := schema.GroupVersion{Group: f.kind.Group, Version: version}
		if f.versions[version] == nil {
			return "", fmt.Errorf("request to convert CR to an invalid group/version: %s", gv)
		}
		return gv.String(), nil
	}
	if f.hooked() && call != nil {
		return func(objs []*unstructured.Unstructured, version string) ([]*unstructured.Unstructured, error) {
			apiVersion, err := target(version)
			if err != nil {
				return nil, err
			}
			return call(f.CustomResourceDefinition, objs, apiVersion)
		}
	}
	return func(objs []*unstructured.Unstructured, version string) ([]*unstructured.Unstructured, error) {
		apiVersion, err := target(version)
		for _, u := range objs {
			u.SetAPIVersion(apiVersion)
		}
		return objs, err
	}
}

// hooked reports whether a webhook converts the objects.
func (f *family) hooked() bool {
	c := f.Spec.Conversion
	return c != nil && c.Strategy == apiextensionsv1.WebhookConverter && c.Webhook != nil
}
