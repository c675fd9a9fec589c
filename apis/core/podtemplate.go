package core

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/podspec"
)

var podTemplates = apis.Define(apis.Resource[*corev1.PodTemplate]{
	Plural:  "podtemplates",
	Default: func(t *corev1.PodTemplate) { podspec.Default(&t.Template.Spec) },
	Prepare: func(t, old *corev1.PodTemplate) { podspec.DropTemplate(&t.Template, template(old)) },
	Validate: func(t, old *corev1.PodTemplate) field.ErrorList {
		at := check.New()
		podspec.ValidateTemplate(at.Dot("template"), &t.Template, template(old))
		return at.Errors()
	},
	Warn: func(t, old *corev1.PodTemplate) []string {
		if old != nil && equality.Semantic.DeepEqual(t.Template, old.Template) {
			return nil
		}
		return podspec.Template(&t.Template, template(old)).Warn(check.At{}.Dot("template"))
	},
	Spec: func(t *corev1.PodTemplate) any { return &t.Template },
	Columns: append(
		meta.ContainerColumns(func(t *corev1.PodTemplate) *corev1.PodSpec { return &t.Template.Spec }),
		apis.Column[*corev1.PodTemplate]{Name: "Pod Labels", Cell: func(t *corev1.PodTemplate, _ time.Time) any {
			return labels.FormatLabels(t.Template.Labels)
		}},
		apis.Column[*corev1.PodTemplate]{Name: "Age"},
	),
	Lifetime: apis.Lifetime[*corev1.PodTemplate]{ReturnsDeleted: true},
})

func template(t *corev1.PodTemplate) *corev1.PodTemplateSpec {
	if t == nil {
		return nil
	}
	return &t.Template
}
