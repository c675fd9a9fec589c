package core

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"

	"github.com/knarr-dev/knarr/apis"
)

var serviceAccounts = apis.Define(apis.Resource[*corev1.ServiceAccount]{
	Plural:  "serviceaccounts",
	Short:   []string{"sa"},
	Prepare: prepareServiceAccount,
	Warn:    warnServiceAccount,
	Name:    validation.ValidateServiceAccountName,
	Acts: []apis.Act{{
		Name: "token", Kind: authenticationv1.SchemeGroupVersion.WithKind("TokenRequest"), Verbs: []string{"create"},
	}},
	Columns:  []apis.Column[*corev1.ServiceAccount]{},
	Lifetime: apis.Lifetime[*corev1.ServiceAccount]{ReturnsDeleted: true},
})

// prepareServiceAccount leaves of each reference to a secret but its name.
func prepareServiceAccount(s, _ *corev1.ServiceAccount) {
	for i := range s.Secrets {
		s.Secrets[i] = corev1.ObjectReference{Name: s.Secrets[i].Name}
	}
}

func warnServiceAccount(s, old *corev1.ServiceAccount) []string {
	const key = "kubernetes.io/enforce-mountable-secrets"
	if old != nil {
		if _, had := old.Annotations[key]; had {
			return nil
		}
	}
	if _, has := s.Annotations[key]; has {
		return []string{"metadata.annotations[" + key + "]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"}
	}
	return nil
}
