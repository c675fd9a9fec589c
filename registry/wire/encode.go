package wire

import (
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// Marshal encodes an object that is not stored, a Status or a review, with
// the kind and apiVersion that it has set.
func Marshal(media string, obj runtime.Object, pretty bool) ([]byte, error) {
	switch media {
	case Protobuf:
		return marshalProto(obj)
	case YAML:
		return yaml.Marshal(obj)
	}
	if pretty {
		data, err := json.MarshalIndent(obj, "", "  ")
		return data, err
	}
	data, err := json.Marshal(obj)
	return append(data, '\n'), err
}

func marshalProto(obj runtime.Object) ([]byte, error) {
	m, ok := obj.(interface{ Marshal() ([]byte, error) })
	if !ok {
		return nil, fmt.Errorf("%T has no protobuf form", obj)
	}
	raw, err := m.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", obj, err)
	}
	apiVersion, kind := obj.GetObjectKind().GroupVersionKind().ToAPIVersionAndKind()
	envelope := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: apiVersion, Kind: kind}, Raw: raw}
	data, err := envelope.Marshal()
	return append([]byte(magic), data...), err
}
