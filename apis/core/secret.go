package core

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis"
)

var secrets = apis.Define(apis.Resource[*corev1.Secret]{
	Plural:  "secrets",
	Default: defaultSecret,
	Fields: map[string]func(*corev1.Secret) string{
		"type": func(s *corev1.Secret) string { return string(s.Type) },
	},
	Columns: []apis.Column[*corev1.Secret]{
		{Name: "Type", Cell: func(s *corev1.Secret, _ time.Time) any { return string(s.Type) }},
		{Name: "Data", Cell: func(s *corev1.Secret, _ time.Time) any { return int64(len(s.Data)) }},
	},
})

// defaultSecret also carries what was written in clear over to the data.
func defaultSecret(s *corev1.Secret) {
	if len(s.StringData) > 0 && s.Data == nil {
		s.Data = map[string][]byte{}
	}
	for key, value := range s.StringData {
		s.Data[key] = []byte(value)
	}
	s.StringData = nil
	if s.Type == "" {
		s.Type = corev1.SecretTypeOpaque
	}
}
