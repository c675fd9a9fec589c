// Package apiregistration declares the kind that says which server serves a
// group version, APIService.
package apiregistration

import (
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/knarr-dev/knarr/apis"
)

// Group is the kinds of apiregistration.k8s.io/v1.
var Group = apis.In(apiregistrationv1.SchemeGroupVersion, apiServices)
