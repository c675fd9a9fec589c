// Package all lists the plugins of the scheduler.
package all

import (
	"github.com/knarr-dev/knarr/sched"
	"github.com/knarr-dev/knarr/sched/affinity"
	"github.com/knarr-dev/knarr/sched/claims"
	"github.com/knarr-dev/knarr/sched/cordon"
	"github.com/knarr-dev/knarr/sched/gates"
	"github.com/knarr-dev/knarr/sched/image"
	"github.com/knarr-dev/knarr/sched/interpod"
	"github.com/knarr-dev/knarr/sched/nodename"
	"github.com/knarr-dev/knarr/sched/ports"
	"github.com/knarr-dev/knarr/sched/preempt"
	"github.com/knarr-dev/knarr/sched/priority"
	"github.com/knarr-dev/knarr/sched/resources"
	"github.com/knarr-dev/knarr/sched/spread"
	"github.com/knarr-dev/knarr/sched/taint"
	"github.com/knarr-dev/knarr/sched/volumes"
)

// Plugins are asked in this order: the first that objects to a node is the
// one whose reason is told.
var Plugins = []sched.Erased{
	gates.Plugin,
	priority.Plugin,
	cordon.Plugin,
	nodename.Plugin,
	taint.Plugin,    // weight 3
	affinity.Plugin, // weight 2
	ports.Plugin,
	resources.Fit, // weight 1
	volumes.Restrictions,
	volumes.Limits,
	volumes.Binding,
	volumes.Zone,
	spread.Plugin,   // weight 2
	interpod.Plugin, // weight 2
	claims.Plugin,
	preempt.Plugin,
	resources.Balance, // weight 1
	image.Plugin,      // weight 1
}
