package flowcontrol

import (
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var flowSchemas = apis.Define(apis.Resource[*flowcontrolv1.FlowSchema]{
	Plural:  "flowschemas",
	Scope:   apis.Cluster,
	Prepare: meta.KeepStatus[*flowcontrolv1.FlowSchema],
	Spec:    func(f *flowcontrolv1.FlowSchema) any { return &f.Spec },
	Subs:    []apis.Sub[*flowcontrolv1.FlowSchema]{meta.Status[*flowcontrolv1.FlowSchema](nil)},
})
