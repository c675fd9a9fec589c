package storage

import (
	"reflect"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
)

var volumeAttributesClasses = apis.Define(apis.Resource[*storagev1.VolumeAttributesClass]{
	Plural: "volumeattributesclasses",
	Short:  []string{"vac"},
	Scope:  apis.Cluster,

	Validate: validateVolumeAttributesClass,

	Columns: []apis.Column[*storagev1.VolumeAttributesClass]{
		{Name: "DriverName", Cell: func(c *storagev1.VolumeAttributesClass, _ time.Time) any { return c.DriverName }},
	},
	Lifetime: apis.Lifetime[*storagev1.VolumeAttributesClass]{ReturnsDeleted: true},
})

func validateVolumeAttributesClass(c, old *storagev1.VolumeAttributesClass) field.ErrorList {
	at := check.New()
	if old != nil && c.DriverName != old.DriverName {
		at.Dot("driverName").Forbidden("updates to driverName are forbidden.")
	}
	if old != nil && !reflect.DeepEqual(c.Parameters, old.Parameters) {
		at.Dot("parameters").Forbidden("updates to parameters are forbidden.")
	}
	driver(at.Dot("driverName"), c.DriverName)
	parameters(at.Dot("parameters"), c.Parameters)
	if len(c.Parameters) == 0 {
		at.Dot("parameters").Required("must contain at least one key/value pair")
	}
	return at.Errors()
}
