// Package all lists the controllers.
package all

import (
	"github.com/knarr-dev/knarr/ctrl"
	"github.com/knarr-dev/knarr/ctrl/deployment"
	"github.com/knarr-dev/knarr/ctrl/replicaset"
)

// Options are what controllers are told of the cluster.
type Options struct{}

// List is every controller that o has the means for.
func List(o Options) []ctrl.Erased {
	return []ctrl.Erased{
		deployment.Controller,
		replicaset.Controller,
		replicaset.RC,
	}
}
