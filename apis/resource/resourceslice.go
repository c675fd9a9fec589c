package resource

import (
	resourcev1 "k8s.io/api/resource/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var resourceSlices = apis.Define(apis.Resource[*resourcev1.ResourceSlice]{
	Plural:   "resourceslices",
	Scope:    apis.Cluster,
	Spec:     func(s *resourcev1.ResourceSlice) any { return &s.Spec },
	Fields:   map[string]func(*resourcev1.ResourceSlice) string{"spec.driver": func(s *resourcev1.ResourceSlice) string { return s.Spec.Driver }, "spec.nodeName": func(s *resourcev1.ResourceSlice) string { return meta.Deref(s.Spec.NodeName, "") }},
	Lifetime: apis.Lifetime[*resourcev1.ResourceSlice]{ReturnsDeleted: true},
})
