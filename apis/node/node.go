// Package node says what the kinds of the node.k8s.io group are: what runs containers.
package node

import (
	nodev1 "k8s.io/api/node/v1"

	"github.com/knarr-dev/knarr/apis"
)

// Group is node.k8s.io/v1.
var Group = apis.In(nodev1.SchemeGroupVersion, runtimeClasses)
