package networking

import (
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

var ipAddresses = apis.Define(apis.Resource[*networkingv1.IPAddress]{
	Plural: "ipaddresses",
	Short:  []string{"ip"},
	Scope:  apis.Cluster,

	Validate: validateIPAddress,
	Name:     address,

	Columns: []apis.Column[*networkingv1.IPAddress]{
		{Name: "ParentRef", Cell: func(a *networkingv1.IPAddress, _ time.Time) any { return printParent(a.Spec.ParentRef) }},
		{Name: "Age"},
	},
})

// printParent names what an address is given to: resource.group/namespace/name.
func printParent(p *networkingv1.ParentReference) string {
	if p == nil {
		return "<none>"
	}
	kind := schema.GroupResource{Group: p.Group, Resource: p.Resource}
	path := []string{strings.ToLower(kind.String()), p.Namespace, p.Name}
	if p.Namespace == "" {
		path = []string{path[0], p.Name}
	}
	return strings.Join(path, "/")
}

// address demands that a name is an address in its one proper form, so that
// two names are two addresses.
func address(name string, _ bool) (wrong []string) {
	for _, err := range utilvalidation.IsValidIP(nil, name) {
		wrong = append(wrong, err.Detail)
	}
	return wrong
}

func validateIPAddress(a, old *networkingv1.IPAddress) field.ErrorList {
	root, p := check.New(), a.Spec.ParentRef
	at := root.Dot("spec.parentRef")
	if p == nil {
		at.Required("")
	} else {
		if p.Group != "" {
			at.Dot("group").Subdomain(p.Group)
		}
		meta.Segment(at.Dot("resource"), p.Resource)
		meta.Segment(at.Dot("name"), p.Name)
		if p.Namespace != "" {
			at.Dot("namespace").Wrong(p.Namespace, meta.PathSegment(p.Namespace, false))
		}
	}
	if old != nil {
		at.SameBare(p, old.Spec.ParentRef)
	}
	return root.Errors()
}
