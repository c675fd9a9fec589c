package flowcontrol

import (
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var priorityLevelConfigurations = apis.Define(apis.Resource[*flowcontrolv1.PriorityLevelConfiguration]{
	Plural:  "prioritylevelconfigurations",
	Scope:   apis.Cluster,
	Prepare: meta.KeepStatus[*flowcontrolv1.PriorityLevelConfiguration],
	Spec:    func(p *flowcontrolv1.PriorityLevelConfiguration) any { return &p.Spec },
	Subs:    []apis.Sub[*flowcontrolv1.PriorityLevelConfiguration]{meta.Status[*flowcontrolv1.PriorityLevelConfiguration](nil)},
})
