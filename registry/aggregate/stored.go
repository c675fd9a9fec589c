package aggregate

import (
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/client/applyconfiguration"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry/patch"
	"github.com/knarr-dev/knarr/registry/wire"
)

// Kind names the kind of APIServices.
var Kind = apiregistrationv1.Resource("apiservices")

// Stored is how APIServices stand in the store: as upstream as JSON.
var Stored = &wire.Storage{Seal: seal, Open: open}

func seal(obj apis.Object) ([]byte, error) {
	s, ok := obj.(*apiregistrationv1.APIService)
	if !ok {
		return nil, fmt.Errorf("encode an APIService: it is a %T", obj)
	}
	c := *s
	c.SetGroupVersionKind(apiregistrationv1.SchemeGroupVersion.WithKind("APIService"))
	text, err := json.Marshal(&c)
	return append(text, '\n'), err
}

func open(value []byte) ([]byte, error) {
	var s apiregistrationv1.APIService
	if err := json.Unmarshal(value, &s); err != nil {
		return nil, err
	}
	return s.Marshal()
}

// Owners keep account of who owns which fields of APIServices, which
// client-go has no schema of.
func Owners() *patch.Owners {
	return patch.NewTypedOwners(func() managedfields.TypeConverter {
		scheme := runtime.NewScheme()
		if err := apiregistrationv1.AddToScheme(scheme); err != nil {
			panic(err) // the library's own types
		}
		return applyconfiguration.NewTypeConverter(scheme)
	})
}
