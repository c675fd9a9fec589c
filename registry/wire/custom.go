package wire

import (
	"encoding/json"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
)

// A Codec reads and writes the objects of a kind that has no Go type, as one
// that a CustomResourceDefinition defines. They stand in the store as JSON and
// are sent as JSON or YAML only.
type Codec interface {
	// Parse reads what a client has sent into obj, a new object. With strict
	// it tells of fields that are unknown or given twice.
	Parse(text []byte, obj apis.Object, strict bool) (faults []error, err error)

	// Load reads what is stored, and Store makes what is to be stored.
	Load(text []byte) (apis.Object, error)
	Store(obj apis.Object) ([]byte, error)

	// Ready makes of what is stored what Load reads at little cost, all at
	// once; nil where it does so anyway.
	Ready(texts [][]byte) ([][]byte, error)
}

// NewCustom describes the kind gvk, which has no Go type, and whose lists are
// of the kind list.
func NewCustom(gvk schema.GroupVersionKind, list string, codec Codec) *Kind {
	k := NewKind(gvk, func() apis.Object {
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(gvk)
		return u
	})
	k.list, k.codec = list, codec
	return k
}

// IsCustom reports whether the kind has no Go type.
func (k *Kind) IsCustom() bool { return k.codec != nil }

// Ready is what Codec.Ready makes of stored objects, nil where they need not
// be made anything of.
func (k *Kind) Ready(texts [][]byte) ([][]byte, error) {
	if k.codec == nil {
		return nil, nil
	}
	return k.codec.Ready(texts)
}

// In is the object as one of kind k, another version of its own kind that is
// stored as the same bytes.
func (o *Object) In(k *Kind) *Object {
	if o.Kind == k {
		return o
	}
	return &Object{Kind: k, Raw: o.Raw, Rev: o.Rev}
}

// A Storage is how the objects of a kind that has a Go type stand in the
// store, where that is not protobuf.
type Storage struct {
	Seal func(obj apis.Object) ([]byte, error)
	Open func(value []byte) (raw []byte, err error) // the protobuf message
}

// Stored makes the objects of the kind be stored as s says.
func (k *Kind) Stored(s *Storage) { k.store = s }

// textLabels reads the labels of an object that is JSON. One that cannot be
// read has none: Load tells why.
func textLabels(text []byte) (ls Labels) {
	var obj struct {
		Metadata struct {
			Labels map[string]string `json:"labels"`
		} `json:"metadata"`
	}
	if json.Unmarshal(text, &obj) != nil {
		return nil
	}
	for key, value := range obj.Metadata.Labels {
		ls = append(ls, NewLabel(key, value))
	}
	return ls
}
