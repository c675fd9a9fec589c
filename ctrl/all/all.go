// Package all lists the controllers.
package all

import (
	"net/netip"

	"github.com/knarr-dev/knarr/ctrl"
	"github.com/knarr-dev/knarr/ctrl/clusterrole"
	"github.com/knarr-dev/knarr/ctrl/cronjob"
	"github.com/knarr-dev/knarr/ctrl/daemonset"
	"github.com/knarr-dev/knarr/ctrl/deployment"
	"github.com/knarr-dev/knarr/ctrl/disruption"
	"github.com/knarr-dev/knarr/ctrl/endpoints"
	"github.com/knarr-dev/knarr/ctrl/endpointslice"
	"github.com/knarr-dev/knarr/ctrl/job"
	"github.com/knarr-dev/knarr/ctrl/nodeipam"
	"github.com/knarr-dev/knarr/ctrl/nodelifecycle"
	"github.com/knarr-dev/knarr/ctrl/podgc"
	"github.com/knarr-dev/knarr/ctrl/protection"
	"github.com/knarr-dev/knarr/ctrl/quota"
	"github.com/knarr-dev/knarr/ctrl/replicaset"
	"github.com/knarr-dev/knarr/ctrl/rootca"
	"github.com/knarr-dev/knarr/ctrl/serviceaccount"
	"github.com/knarr-dev/knarr/ctrl/servicecidr"
	"github.com/knarr-dev/knarr/ctrl/statefulset"
	"github.com/knarr-dev/knarr/ctrl/tainteviction"
)

// finishedPods is how many finished pods are kept, as by upstream.
const finishedPods = 12500

// Options are what controllers are told of the cluster. A controller without
// what it needs is left out of the list.
type Options struct {
	// RootCA returns the certificates, as PEM, by which pods know the API
	// server. It is called often and may be from several goroutines.
	RootCA func() string

	PodRanges []nodeipam.Range // for the pods of nodes
	Services  []netip.Prefix   // that no node may get

	Counts quota.Counts // of the objects of every kind
}

// List is every controller that o has the means for.
func List(o Options) []ctrl.Erased {
	list := []ctrl.Erased{
		deployment.Controller,
		replicaset.Controller,
		replicaset.RC,
		endpointslice.Controller,
		endpointslice.Mirroring,
		endpoints.Controller,
		serviceaccount.Controller,
		clusterrole.Controller,
		servicecidr.Controller,
		nodelifecycle.Controller,
		nodelifecycle.Evictor,
		tainteviction.Controller,
		job.Controller,
		job.Orphans,
		cronjob.Controller,
		statefulset.Controller,
		daemonset.Controller,
		disruption.Controller,
		disruption.Stale,
		protection.Claims,
		protection.Volumes,
		protection.Classes,
		podgc.New(finishedPods),
	}
	if o.RootCA != nil {
		list = append(list, rootca.New(o.RootCA))
	}
	if o.Counts != nil {
		list = append(list, quota.New(o.Counts))
	}
	if len(o.PodRanges) > 0 {
		list = append(list, nodeipam.New(o.PodRanges, o.Services))
	}
	return list
}
