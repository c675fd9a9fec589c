package node

import (
	nodev1 "k8s.io/api/node/v1"

	"github.com/knarr-dev/knarr/apis"
)

var runtimeClasses = apis.Define(apis.Resource[*nodev1.RuntimeClass]{
	Plural:   "runtimeclasses",
	Scope:    apis.Cluster,
	Lifetime: apis.Lifetime[*nodev1.RuntimeClass]{NeedsVersion: true, UpsertsOnUpdate: true},
})
