package networking

import (
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
)

var ipAddresses = apis.Define(apis.Resource[*networkingv1.IPAddress]{
	Plural: "ipaddresses",
	Short:  []string{"ip"},
	Scope:  apis.Cluster,
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
