package core

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis"
)

var serviceAccounts = apis.Define(apis.Resource[*corev1.ServiceAccount]{
	Plural: "serviceaccounts",
	Short:  []string{"sa"},
	Acts: []apis.Act{{
		Name: "token", Kind: authenticationv1.SchemeGroupVersion.WithKind("TokenRequest"), Verbs: []string{"create"},
	}},
	Columns:  []apis.Column[*corev1.ServiceAccount]{},
	Lifetime: apis.Lifetime[*corev1.ServiceAccount]{ReturnsDeleted: true},
})
