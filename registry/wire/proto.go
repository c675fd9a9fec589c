package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
)

// The protobuf form of the API: four bytes, then a runtime.Unknown message
// that holds type meta and the object's own message. Numbers are those of
// k8s.io/apimachinery/pkg/runtime/generated.proto.
const (
	magic          = "k8s\x00"
	fieldTypeMeta  = 1<<3 | 2
	fieldRaw       = 2<<3 | 2
	fieldMetadata  = 1<<3 | 2 // of every kind, and of every list
	fieldItems     = 2<<3 | 2 // of every list
	fieldVersion   = 6<<3 | 2 // resourceVersion in ObjectMeta
	fieldEventType = 1<<3 | 2 // of a WatchEvent
	fieldEventObj  = 2<<3 | 2
)

// envelopeEnd is the empty contentEncoding and contentType that upstream writes.
var envelopeEnd = []byte{3<<3 | 2, 0, 4<<3 | 2, 0}

var errEnvelope = errors.New("not an object in protobuf")

// envelope is everything of an envelope that comes before its raw field.
func envelope(apiVersion, kind string) []byte {
	var meta []byte
	meta = appendString(meta, 1, apiVersion)
	meta = appendString(meta, 2, kind)
	b := append([]byte(magic), fieldTypeMeta)
	b = binary.AppendUvarint(b, uint64(len(meta)))
	return append(b, meta...)
}

func appendString(b []byte, field int, s string) []byte {
	b = append(b, byte(field<<3|2))
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// openEnvelope returns the raw message in an envelope.
func openEnvelope(data []byte) ([]byte, error) {
	rest, ok := bytes.CutPrefix(data, []byte(magic))
	if !ok {
		return nil, errEnvelope
	}
	raw, found := []byte{}, false
	err := eachField(rest, func(num, _ int, val []byte) bool {
		if num == 2 {
			raw, found = val, true
		}
		return !found
	})
	if err != nil {
		return nil, err
	}
	return raw, nil
}

// within returns the raw message in an envelope of kind k as clients make it.
// An odd one may be good all the same.
func (k *Kind) within(body []byte) (raw []byte, ok bool) {
	rest, ok := bytes.CutPrefix(body, k.open)
	if !ok || len(rest) == 0 || rest[0] != fieldRaw {
		return nil, false
	}
	size, n := binary.Uvarint(rest[1:])
	if n <= 0 || size > uint64(len(rest)-1-n) {
		return nil, false
	}
	raw, end := rest[1+n:][:size], rest[1+n:][size:]
	return raw, bytes.Equal(end, envelopeEnd)
}

// eachField calls f with the number, wire type and bytes of each field of a
// message until f returns false. A varint's bytes are as encoded.
func eachField(msg []byte, f func(num, typ int, val []byte) bool) error {
	for len(msg) > 0 {
		tag, n := binary.Uvarint(msg)
		if n <= 0 {
			return errEnvelope
		}
		msg = msg[n:]
		size, skip := 0, 0
		switch tag & 7 {
		case 0:
			_, size = binary.Uvarint(msg)
			if size <= 0 {
				return errEnvelope
			}
		case 1:
			size = 8
		case 2:
			l, n := binary.Uvarint(msg)
			if n <= 0 || l > uint64(len(msg)-n) {
				return errEnvelope
			}
			size, skip = int(l), n
		case 5:
			size = 4
		default:
			return errEnvelope
		}
		if len(msg) < skip+size {
			return errEnvelope
		}
		if !f(int(tag>>3), int(tag&7), msg[skip:skip+size]) {
			return nil
		}
		msg = msg[skip+size:]
	}
	return nil
}

// version is the message metadata{resourceVersion: rev}. Protobuf merges it
// into the metadata that came before it.
func version(b []byte, rev int64) []byte {
	var digits [20]byte
	d := strconv.AppendInt(digits[:0], rev, 10)
	b = append(b, fieldMetadata, byte(len(d)+2), fieldVersion, byte(len(d)))
	return append(b, d...)
}

func versionLen(rev int64) int { return 4 + decimalLen(rev) }

func decimalLen(n int64) int {
	l := 1
	for ; n >= 10; n /= 10 {
		l++
	}
	return l
}

func uvarintLen(n int) int {
	l := 1
	for ; n >= 0x80; n >>= 7 {
		l++
	}
	return l
}

// size is the length of the object's message with its resourceVersion.
func (o *Object) size() int { return len(o.Raw) + versionLen(o.Rev) }

// ProtoLen is the length of what AppendProto appends.
func (o *Object) ProtoLen() int {
	n := o.size()
	return len(o.open) + 1 + uvarintLen(n) + n + len(envelopeEnd)
}

// AppendProto appends the object in its envelope.
func (o *Object) AppendProto(b []byte) []byte {
	b = append(b, o.open...)
	b = append(b, fieldRaw)
	b = binary.AppendUvarint(b, uint64(o.size()))
	b = append(b, o.Raw...)
	b = version(b, o.Rev)
	return append(b, envelopeEnd...)
}

// ItemLen is the length of what AppendItem appends.
func (o *Object) ItemLen() int {
	n := o.size()
	return 1 + uvarintLen(n) + n
}

// AppendItem appends the object as an item of its kind's list.
func (o *Object) AppendItem(b []byte) []byte {
	b = append(b, fieldItems)
	b = binary.AppendUvarint(b, uint64(o.size()))
	b = append(b, o.Raw...)
	return version(b, o.Rev)
}

// AppendEventFrame appends a watch event of the given type, ADDED or so, as
// one length-prefixed frame of a protobuf watch: a bare WatchEvent message
// whose object is in its envelope.
func (o *Object) AppendEventFrame(b []byte, typ string) []byte {
	return eventFrame(b, typ, o.ProtoLen(), o.AppendProto)
}

// EventFrame appends a watch event whose object is already in its envelope.
func EventFrame(b []byte, typ string, enveloped []byte) []byte {
	return eventFrame(b, typ, len(enveloped), func(b []byte) []byte { return append(b, enveloped...) })
}

func eventFrame(b []byte, typ string, obj int, object func([]byte) []byte) []byte {
	ext := 1 + uvarintLen(obj) + obj // RawExtension{raw: object}
	event := 2 + len(typ) + 1 + uvarintLen(ext) + ext
	b = binary.BigEndian.AppendUint32(b, uint32(event))
	b = append(b, fieldEventType, byte(len(typ)))
	b = append(b, typ...)
	b = append(b, fieldEventObj)
	b = binary.AppendUvarint(b, uint64(ext))
	b = append(b, 1<<3|2)
	b = binary.AppendUvarint(b, uint64(obj))
	return object(b)
}

// ListOpen returns what stands before the items of a protobuf list of kind
// k: envelope and list metadata, for items of the given length in all.
func (k *Kind) ListOpen(meta ListMeta, items int) []byte {
	msg := meta.proto()
	b := envelope(k.GroupVersion().String(), k.list)
	b = append(b, fieldRaw)
	b = binary.AppendUvarint(b, uint64(1+uvarintLen(len(msg))+len(msg)+items))
	b = append(b, fieldMetadata)
	b = binary.AppendUvarint(b, uint64(len(msg)))
	return append(b, msg...)
}

// ListEnd stands after the items of a protobuf list.
func ListEnd() []byte { return envelopeEnd }

// ListMeta is the metadata of a list.
type ListMeta struct {
	Rev       int64
	Continue  string
	Remaining *int64
}

func (m ListMeta) proto() []byte {
	var b []byte
	b = appendString(b, 1, "") // selfLink, which upstream writes too
	b = appendString(b, 2, strconv.FormatInt(m.Rev, 10))
	b = appendString(b, 3, m.Continue)
	if m.Remaining != nil {
		b = append(b, 4<<3)
		b = binary.AppendUvarint(b, uint64(*m.Remaining))
	}
	return b
}

// JSONListOpen is what stands before the items of a JSON list of kind k.
func (k *Kind) JSONListOpen(meta ListMeta) []byte {
	var b strings.Builder
	b.WriteString(`{"kind":"` + k.list + `","apiVersion":"` + k.GroupVersion().String() + `","metadata":{"resourceVersion":"`)
	b.WriteString(strconv.FormatInt(meta.Rev, 10) + `"`)
	if meta.Continue != "" || k.codec != nil {
		b.WriteString(`,"continue":"` + meta.Continue + `"`)
	}
	if meta.Remaining != nil {
		b.WriteString(`,"remainingItemCount":` + strconv.FormatInt(*meta.Remaining, 10))
	}
	b.WriteString(`},"items":[`)
	return []byte(b.String())
}
