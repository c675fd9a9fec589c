package resource

import (
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

var resourceClaimTemplates = apis.Define(apis.Resource[*resourcev1.ResourceClaimTemplate]{
	Plural: "resourceclaimtemplates",

	Default:  func(t *resourcev1.ResourceClaimTemplate) { defaultClaim(&t.Spec.Spec) },
	Validate: validateResourceClaimTemplate,

	Columns:  []apis.Column[*resourcev1.ResourceClaimTemplate]{},
	Lifetime: apis.Lifetime[*resourcev1.ResourceClaimTemplate]{ReturnsDeleted: true},
})

func validateResourceClaimTemplate(t, old *resourcev1.ResourceClaimTemplate) field.ErrorList {
	root := check.New()
	at := root.Dot("spec")
	meta.Annotations(at.Dot("metadata.annotations"), t.Spec.Annotations)
	meta.Labels(at.Dot("metadata.labels"), t.Spec.Labels)
	claim(at.Dot("spec"), &t.Spec.Spec)
	if old != nil {
		at.SameBare(t.Spec, old.Spec)
	}
	return root.Errors()
}
