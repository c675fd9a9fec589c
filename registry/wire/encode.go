package wire

import (
	"encoding/binary"
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

// marshalProto encodes an object in its envelope, into memory that it takes
// once.
func marshalProto(obj runtime.Object) ([]byte, error) {
	m, ok := obj.(message)
	if !ok {
		return nil, fmt.Errorf("%T has no protobuf form", obj)
	}
	return seal(envelope(obj.GetObjectKind().GroupVersionKind().ToAPIVersionAndKind()), m)
}

// seal is a message in the envelope that open opens.
func seal(open []byte, m message) ([]byte, error) {
	size := m.Size()
	head := len(open) + 1 + uvarintLen(size)
	data := make([]byte, head+size+len(envelopeEnd))
	n := copy(data, open)
	data[n] = fieldRaw
	binary.PutUvarint(data[n+1:], uint64(size))
	if _, err := m.MarshalToSizedBuffer(data[head : head+size]); err != nil {
		return nil, fmt.Errorf("encode %T: %w", m, err)
	}
	copy(data[head+size:], envelopeEnd)
	return data, nil
}
