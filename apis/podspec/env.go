package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/volume"
)

func env(at check.At, vars []corev1.EnvVar) {
	for i, v := range vars {
		at := at.Index(i)
		if at.Dot("name").Present(v.Name) {
			at.Dot("name").Wrong(v.Name, utilvalidation.IsRelaxedEnvVarName(v.Name))
		}
		if v.ValueFrom != nil {
			valueFrom(at.Dot("valueFrom"), &v)
		}
	}
}

func valueFrom(at check.At, v *corev1.EnvVar) {
	from, count := v.ValueFrom, 0
	if from.FieldRef != nil {
		count++
		volume.FieldRef(at.Dot("fieldRef"), from.FieldRef)
	}
	if from.ResourceFieldRef != nil {
		count++
		volume.ResourceRef(at.Dot("resourceFieldRef"), from.ResourceFieldRef, false)
	}
	if from.ConfigMapKeyRef != nil {
		count++
		keyRef(at.Dot("configMapKeyRef"), from.ConfigMapKeyRef.Name, from.ConfigMapKeyRef.Key)
	}
	if from.SecretKeyRef != nil {
		count++
		keyRef(at.Dot("secretKeyRef"), from.SecretKeyRef.Name, from.SecretKeyRef.Key)
	}
	if from.FileKeyRef != nil {
		count++
		fileKeyRef(at.Dot("fileKeyRef"), from.FileKeyRef)
	}
	switch {
	case count == 0:
		at.Invalid("", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`")
	case v.Value != "":
		at.Invalid("", "may not be specified when `value` is not empty")
	case count > 1:
		at.Invalid("", "may not have more than one field specified at a time")
	}
}

func keyRef(at check.At, name, key string) {
	meta.Name(at.Dot("name"), name)
	if at.Dot("key").Present(key) {
		at.Dot("key").Wrong(key, utilvalidation.IsConfigMapKey(key))
	}
}

func fileKeyRef(at check.At, r *corev1.FileKeySelector) {
	if at.Dot("key").Present(r.Key) {
		at.Dot("key").Wrong(r.Key, utilvalidation.IsRelaxedEnvVarName(r.Key))
	}
	if at.Dot("volumeName").Present(r.VolumeName) {
		at.Dot("volumeName").Label(r.VolumeName)
	}
	if at := at.Dot("path"); at.Present(r.Path) && volume.Backsteps(r.Path) {
		at.Invalid(r.Path, "must not contain '..'")
	}
}

func envFrom(at check.At, sources []corev1.EnvFromSource) {
	name := func(at check.At, name string) {
		if at.Present(name) {
			at.Wrong(name, validation.NameIsDNSSubdomain(name, true))
		}
	}
	for i, s := range sources {
		here := at.Index(i)
		if s.Prefix != "" {
			here.Dot("prefix").Wrong(s.Prefix, utilvalidation.IsRelaxedEnvVarName(s.Prefix))
		}
		if s.ConfigMapRef != nil {
			name(here.Dot("configMapRef.name"), s.ConfigMapRef.Name)
		}
		if s.SecretRef != nil {
			name(here.Dot("secretRef.name"), s.SecretRef.Name)
		}
		switch {
		case s.ConfigMapRef == nil && s.SecretRef == nil:
			at.Invalid("", "must specify one of: `configMapRef` or `secretRef`")
		case s.ConfigMapRef != nil && s.SecretRef != nil:
			at.Invalid("", "may not have more than one field specified at a time")
		}
	}
}
