package apps

import (
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
)

var controllerRevisions = apis.Define(apis.Resource[*appsv1.ControllerRevision]{
	Plural: "controllerrevisions",
	Columns: []apis.Column[*appsv1.ControllerRevision]{
		{Name: "Controller", Cell: func(r *appsv1.ControllerRevision, _ time.Time) any { return controlledBy(r) }},
		{Name: "Revision", Cell: func(r *appsv1.ControllerRevision, _ time.Time) any { return r.Revision }},
	},
})

// controlledBy names the controller of obj as kubectl does.
func controlledBy(obj metav1.Object) string {
	owner := metav1.GetControllerOf(obj)
	if owner == nil {
		return "<none>"
	}
	kind := schema.FromAPIVersionAndKind(owner.APIVersion, owner.Kind).GroupKind()
	return strings.ToLower(kind.String()) + "/" + owner.Name
}
