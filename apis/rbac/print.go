package rbac

import (
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// named lists the subjects of one kind, service accounts with their namespace.
func named(subjects []rbacv1.Subject, kind string) string {
	var names []string
	for _, s := range subjects {
		if s.Kind != kind {
			continue
		}
		if kind == rbacv1.ServiceAccountKind && s.Namespace != "" {
			s.Name = s.Namespace + "/" + s.Name
		}
		names = append(names, s.Name)
	}
	return strings.Join(names, ", ")
}
