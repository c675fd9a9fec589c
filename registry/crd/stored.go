package crd

import (
	"bytes"
	"encoding/json"
	"fmt"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry/wire"
)

// Stored is how definitions stand in the store: as upstream as JSON of
// v1beta1, which it has kept for its being shorter.
var Stored = &wire.Storage{Seal: seal, Open: open}

func seal(obj apis.Object) ([]byte, error) {
	c, ok := obj.(*apiextensionsv1.CustomResourceDefinition)
	if !ok {
		return nil, fmt.Errorf("encode a definition: it is a %T", obj)
	}
	var hub apiextensions.CustomResourceDefinition
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(c.DeepCopy(), &hub, nil); err != nil {
		return nil, err
	}
	var old apiextensionsv1beta1.CustomResourceDefinition
	if err := apiextensionsv1beta1.Convert_apiextensions_CustomResourceDefinition_To_v1beta1_CustomResourceDefinition(&hub, &old, nil); err != nil {
		return nil, err
	}
	old.SetGroupVersionKind(apiextensionsv1beta1.SchemeGroupVersion.WithKind("CustomResourceDefinition"))
	text, err := json.Marshal(&old)
	return append(text, '\n'), err
}

func open(value []byte) ([]byte, error) {
	c, err := definition(value)
	if err != nil {
		return nil, err
	}
	return c.Marshal()
}

// definition reads a definition that is stored in either version.
func definition(value []byte) (*apiextensionsv1.CustomResourceDefinition, error) {
	var meta metav1.TypeMeta
	if err := json.Unmarshal(value, &meta); err != nil {
		return nil, err
	}
	c := &apiextensionsv1.CustomResourceDefinition{}
	if meta.APIVersion != apiextensionsv1beta1.SchemeGroupVersion.String() {
		err := json.NewDecoder(bytes.NewReader(value)).Decode(c)
		c.TypeMeta = metav1.TypeMeta{}
		return c, err
	}
	var old apiextensionsv1beta1.CustomResourceDefinition
	if err := json.Unmarshal(value, &old); err != nil {
		return nil, err
	}
	apiextensionsv1beta1.SetObjectDefaults_CustomResourceDefinition(&old)
	var hub apiextensions.CustomResourceDefinition
	if err := apiextensionsv1beta1.Convert_v1beta1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&old, &hub, nil); err != nil {
		return nil, err
	}
	err := apiextensionsv1.Convert_apiextensions_CustomResourceDefinition_To_v1_CustomResourceDefinition(&hub, c, nil)
	c.TypeMeta = metav1.TypeMeta{}
	return c, err
}
