// Package wire knows objects as bytes: how they stand in the store and how
// they go to clients, in protobuf and in JSON. An object is carried as the
// protobuf message that was stored; the other forms are made from it when
// first asked for.
//
// It does not decide which form a client gets; package server does.
package wire

import (
	"encoding/json"
	"fmt"
	"strconv"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
)

// A Kind is what must be known of a kind to encode its objects.
type Kind struct {
	schema.GroupVersionKind

	New func() apis.Object

	open     []byte // an envelope up to its raw message
	jsonOpen []byte // {"kind":"Pod","apiVersion":"v1"
	list     string // the kind of its lists

	store *Storage // nil where objects are stored as protobuf
	codec Codec    // nil where objects have a Go type
}

// NewKind describes the kind gvk, whose objects new makes.
func NewKind(gvk schema.GroupVersionKind, new func() apis.Object) *Kind {
	apiVersion, kind := gvk.ToAPIVersionAndKind()
	k := &Kind{GroupVersionKind: gvk, New: new, open: envelope(apiVersion, kind), list: kind + "List"}
	k.jsonOpen = fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q`, kind, apiVersion)
	return k
}

// message is what the gogo-generated types of k8s.io/api have.
type message interface {
	Size() int
	MarshalToSizedBuffer(data []byte) (int, error)
	Unmarshal(data []byte) error
}

// An Object is one revision of one object. It never changes.
type Object struct {
	*Kind

	Raw []byte // its protobuf message, without a resourceVersion; JSON where it has no Go type
	Rev int64  // its resourceVersion

	json atomic.Pointer[[]byte]
}

// Encode makes the bytes to store of obj, whose resourceVersion must be empty.
func (k *Kind) Encode(obj apis.Object) ([]byte, error) {
	switch {
	case k.codec != nil:
		return k.codec.Store(obj)
	case k.store != nil:
		return k.store.Seal(obj)
	}
	m, ok := obj.(message)
	if !ok {
		return nil, fmt.Errorf("encode %s: %T is no protobuf message", k.Kind, obj)
	}
	return seal(k.open, m)
}

// Object returns the object that stands in the store as value since rev.
func (k *Kind) Object(value []byte, rev int64) (*Object, error) {
	raw, err := k.unseal(value)
	if err != nil {
		return nil, fmt.Errorf("read stored %s: %w", k.Kind, err)
	}
	return &Object{Kind: k, Raw: raw, Rev: rev}, nil
}

// unseal returns the raw object of what is stored.
func (k *Kind) unseal(value []byte) ([]byte, error) {
	switch {
	case k.codec != nil:
		return value, nil
	case k.store != nil:
		return k.store.Open(value)
	}
	return openEnvelope(value)
}

// At is the object under another resourceVersion, as the last state of a
// deleted object has that of its deletion.
func (o *Object) At(rev int64) *Object { return &Object{Kind: o.Kind, Raw: o.Raw, Rev: rev} }

// Decode returns the object as its Go type, a new one at each call.
func (o *Object) Decode() (apis.Object, error) {
	obj, err := o.load()
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", o.GroupVersionKind.Kind, err)
	}
	obj.SetResourceVersion(strconv.FormatInt(o.Rev, 10))
	return obj, nil
}

func (o *Object) load() (apis.Object, error) {
	if o.codec != nil {
		return o.codec.Load(o.Raw)
	}
	obj := o.New()
	return obj, obj.(message).Unmarshal(o.Raw)
}

// JSON is the object as an item of a list has it: without kind and
// apiVersion, unless it has no Go type. It is made once and kept until DropJSON; made tells that this
// call was the one.
func (o *Object) JSON() (text []byte, made bool, err error) {
	if p := o.json.Load(); p != nil {
		return *p, false, nil
	}
	obj, err := o.Decode()
	if err != nil {
		return nil, false, err
	}
	data, err := json.Marshal(obj)
	if err != nil {
		return nil, false, fmt.Errorf("encode %s: %w", o.GroupVersionKind.Kind, err)
	}
	return data, o.json.CompareAndSwap(nil, &data), nil
}

// DropJSON forgets the JSON, which can be made again, and returns its size.
func (o *Object) DropJSON() int {
	if p := o.json.Swap(nil); p != nil {
		return len(*p)
	}
	return 0
}

// AppendJSON appends the object whose JSON item is given as it stands alone,
// with kind and apiVersion.
func (k *Kind) AppendJSON(b, item []byte) []byte {
	if k.codec != nil {
		return append(b, item...)
	}
	b = append(b, k.jsonOpen...)
	if len(item) > 2 {
		b = append(b, ',')
	}
	return append(b, item[1:]...)
}

// HasJSON tells whether the object's JSON is kept now.
func (o *Object) HasJSON() bool { return o.json.Load() != nil }
