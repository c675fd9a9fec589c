package resource

import (
	resourcev1 "k8s.io/api/resource/v1"

	"github.com/knarr-dev/knarr/apis"
)

var deviceClasses = apis.Define(apis.Resource[*resourcev1.DeviceClass]{
	Plural:   "deviceclasses",
	Scope:    apis.Cluster,
	Spec:     func(c *resourcev1.DeviceClass) any { return &c.Spec },
	Columns:  []apis.Column[*resourcev1.DeviceClass]{},
	Lifetime: apis.Lifetime[*resourcev1.DeviceClass]{ReturnsDeleted: true},
})
