package resource

import (
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

var deviceClasses = apis.Define(apis.Resource[*resourcev1.DeviceClass]{
	Plural: "deviceclasses",
	Scope:  apis.Cluster,

	Validate: validateDeviceClass,
	Spec:     func(c *resourcev1.DeviceClass) any { return &c.Spec },

	Columns:  []apis.Column[*resourcev1.DeviceClass]{},
	Lifetime: apis.Lifetime[*resourcev1.DeviceClass]{ReturnsDeleted: true},
})

func validateDeviceClass(c, old *resourcev1.DeviceClass) field.ErrorList {
	root, s := check.New(), &c.Spec
	at := root.Dot("spec")
	selectors(at.Dot("selectors"), s.Selectors, old != nil && equality.Semantic.DeepEqual(s.Selectors, old.Spec.Selectors))
	stored := old != nil && equality.Semantic.DeepEqual(s.Config, old.Spec.Config)
	list(at.Dot("config"), s.Config, resourcev1.DeviceConfigMaxSize, func(at check.At, c *resourcev1.DeviceClassConfiguration) {
		configuration(at, &c.DeviceConfiguration, stored)
	})
	if name := s.ExtendedResourceName; name != nil && !meta.Extended(corev1.ResourceName(*name)) {
		at.Dot("extendedResourceName").Invalid(*name, "must be a valid extended resource name")
	}
	return root.Errors()
}
