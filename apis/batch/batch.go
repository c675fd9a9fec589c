// Package batch says what the kinds of the batch group are: work that ends.
package batch

import (
	batchv1 "k8s.io/api/batch/v1"

	"github.com/knarr-dev/knarr/apis"
)

// Group is batch/v1.
var Group = apis.In(batchv1.SchemeGroupVersion, cronJobs, jobs)
