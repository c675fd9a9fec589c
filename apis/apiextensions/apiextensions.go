// Package apiextensions declares the kind that declares other kinds,
// CustomResourceDefinition.
package apiextensions

import (
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/knarr-dev/knarr/apis"
)

// Group is the kinds of apiextensions.k8s.io/v1.
var Group = apis.In(apiextensionsv1.SchemeGroupVersion, customResourceDefinitions)
