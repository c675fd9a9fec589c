package apps

import (
	"encoding/json"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
)

var controllerRevisions = apis.Define(apis.Resource[*appsv1.ControllerRevision]{
	Plural:   "controllerrevisions",
	Validate: validateRevision,
	Columns: []apis.Column[*appsv1.ControllerRevision]{
		{Name: "Controller", Cell: func(r *appsv1.ControllerRevision, _ time.Time) any { return controlledBy(r) }},
		{Name: "Revision", Cell: func(r *appsv1.ControllerRevision, _ time.Time) any { return r.Revision }},
	},
})

func controlledBy(obj metav1.Object) string {
	owner := metav1.GetControllerOf(obj)
	if owner == nil {
		return "<none>"
	}
	kind := schema.FromAPIVersionAndKind(owner.APIVersion, owner.Kind).GroupKind()
	return strings.ToLower(kind.String()) + "/" + owner.Name
}

func validateRevision(r, old *appsv1.ControllerRevision) field.ErrorList {
	at := check.New()
	check.NonNegative(at.Dot("revision"), r.Revision)
	at = at.Dot("data")
	if old != nil {
		at.Same(r.Data, old.Data)
		return at.Errors()
	}
	var data any
	if r.Data.Raw == nil {
		at.Required("data is mandatory")
	} else if err := json.Unmarshal(r.Data.Raw, &data); err != nil {
		at.Invalid("<value omitted>", "error parsing data: "+err.Error())
	} else if data == nil {
		at.Required("data is mandatory")
	} else if _, ok := data.(map[string]any); !ok {
		at.Required("data must be a valid JSON object")
	}
	return at.Errors()
}
