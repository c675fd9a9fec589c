package core

import (
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

var configMaps = apis.Define(apis.Resource[*corev1.ConfigMap]{
	Plural:   "configmaps",
	Short:    []string{"cm"},
	Default:  defaultConfigMap,
	Validate: validateConfigMap,
	Columns: []apis.Column[*corev1.ConfigMap]{
		{Name: "Data", Cell: func(c *corev1.ConfigMap, _ time.Time) any { return int64(len(c.Data) + len(c.BinaryData)) }},
	},
})

func defaultConfigMap(c *corev1.ConfigMap) {
	if c.Data == nil {
		c.Data = map[string]string{}
	}
}

// fixed is what to say of a change to what was declared immutable.
const fixed = "field is immutable when `immutable` is set"

func validateConfigMap(c, old *corev1.ConfigMap) field.ErrorList {
	at := check.New()
	if old != nil && meta.Deref(old.Immutable, false) {
		if !meta.Deref(c.Immutable, false) {
			at.Dot("immutable").Forbidden(fixed)
		}
		if !reflect.DeepEqual(c.Data, old.Data) {
			at.Dot("data").Forbidden(fixed)
		}
		if !reflect.DeepEqual(c.BinaryData, old.BinaryData) {
			at.Dot("binaryData").Forbidden(fixed)
		}
	}
	size := 0
	for key, value := range check.Sorted(c.Data) {
		at := at.Dot("data").Key(key)
		at.Wrong(key, utilvalidation.IsConfigMapKey(key))
		if _, twice := c.BinaryData[key]; twice {
			at.Invalid(key, "duplicate of key present in binaryData")
		}
		size += len(value)
	}
	for key, value := range check.Sorted(c.BinaryData) {
		at.Dot("binaryData").Key(key).Wrong(key, utilvalidation.IsConfigMapKey(key))
		size += len(value)
	}
	if size > corev1.MaxSecretSize {
		check.Root(at).TooLong(corev1.MaxSecretSize)
	}
	return at.Errors()
}
