package core

import (
	"crypto/tls"
	"encoding/json"
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

var secrets = apis.Define(apis.Resource[*corev1.Secret]{
	Plural:   "secrets",
	Default:  defaultSecret,
	Validate: validateSecret,
	Warn:     warnSecret,
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

func validateSecret(s, old *corev1.Secret) field.ErrorList {
	at := check.New()
	data := at.Dot("data")
	if old != nil {
		at.Dot("type").Same(s.Type, old.Type)
		if meta.Deref(old.Immutable, false) {
			if !meta.Deref(s.Immutable, false) {
				at.Dot("immutable").Forbidden(fixed)
			}
			if !reflect.DeepEqual(s.Data, old.Data) {
				data.Forbidden(fixed)
			}
		}
	}
	size := 0
	for key, value := range check.Sorted(s.Data) {
		data.Key(key).Wrong(key, utilvalidation.IsConfigMapKey(key))
		size += len(value)
	}
	if size > corev1.MaxSecretSize {
		data.TooLong(corev1.MaxSecretSize)
	}
	secretKeys(at, s)
	return at.Errors()
}

// secretKeys demands what a secret of a known type holds.
func secretKeys(at check.At, s *corev1.Secret) {
	data := at.Dot("data")
	need := func(keys ...string) {
		for _, key := range keys {
			if _, ok := s.Data[key]; !ok {
				data.Key(key).Required("")
			}
		}
	}
	config := func(key string) {
		need(key)
		if text, ok := s.Data[key]; ok {
			if err := json.Unmarshal(text, &map[string]any{}); err != nil {
				data.Key(key).Invalid("<secret contents redacted>", err.Error())
			}
		}
	}
	switch s.Type {
	case corev1.SecretTypeServiceAccountToken:
		at.Dot("metadata.annotations").Key(corev1.ServiceAccountNameKey).Present(s.Annotations[corev1.ServiceAccountNameKey])
	case corev1.SecretTypeDockercfg:
		config(corev1.DockerConfigKey)
	case corev1.SecretTypeDockerConfigJson:
		config(corev1.DockerConfigJsonKey)
	case corev1.SecretTypeBasicAuth:
		_, user := s.Data[corev1.BasicAuthUsernameKey]
		if _, password := s.Data[corev1.BasicAuthPasswordKey]; !user && !password {
			need(corev1.BasicAuthUsernameKey, corev1.BasicAuthPasswordKey)
		}
	case corev1.SecretTypeSSHAuth:
		if len(s.Data[corev1.SSHAuthPrivateKey]) == 0 {
			data.Key(corev1.SSHAuthPrivateKey).Required("")
		}
	case corev1.SecretTypeTLS:
		need(corev1.TLSCertKey, corev1.TLSPrivateKeyKey)
	}
}

func warnSecret(s, _ *corev1.Secret) []string {
	if s.Type != corev1.SecretTypeTLS {
		return nil
	}
	if _, err := tls.X509KeyPair(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey]); err != nil {
		return []string{err.Error()}
	}
	return nil
}
