package check

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
)

// Bare shows a struct in a message as upstream does: with all fields, set or
// not, under the names they have in Go. Types of the machinery, which has but
// one of each, are shown as clients know them.
func Bare(v any) any { return json.RawMessage(bare(reflect.ValueOf(v))) }

// SameBare demands that a struct has not changed.
func (a At) SameBare(now, was any) {
	if !equality.Semantic.DeepEqual(now, was) {
		a.Invalid(Bare(now), validation.FieldImmutableErrorMsg)
	}
}

func bare(v reflect.Value) []byte {
	_, own := reflect.TypeAssert[json.Marshaler](v)
	own = own || strings.HasPrefix(v.Type().PkgPath(), "k8s.io/apimachinery/")
	if own || v.Kind() != reflect.Struct && v.Kind() != reflect.Pointer && v.Kind() != reflect.Slice {
		out, err := json.Marshal(v.Interface())
		if err != nil {
			return []byte("null") // as a time in the year 10000, which has no JSON
		}
		return out
	}
	if v.Kind() != reflect.Struct && v.IsNil() {
		return []byte("null")
	}
	var out bytes.Buffer
	switch v.Kind() {
	case reflect.Pointer:
		return bare(v.Elem())
	case reflect.Slice:
		out.WriteByte('[')
		for i := range v.Len() {
			if i > 0 {
				out.WriteByte(',')
			}
			out.Write(bare(v.Index(i)))
		}
		out.WriteByte(']')
	default:
		out.WriteByte('{')
		for i := range v.NumField() {
			text := bare(v.Field(i))
			if f := v.Type().Field(i); f.Anonymous { // its fields are this one's
				text = bytes.TrimPrefix(bytes.TrimSuffix(text, []byte("}")), []byte("{"))
				text = bytes.TrimPrefix(text, []byte("null"))
			} else {
				text = append([]byte(`"`+f.Name+`":`), text...)
			}
			if out.Len() > 1 && len(text) > 0 {
				out.WriteByte(',')
			}
			out.Write(text)
		}
		out.WriteByte('}')
	}
	return out.Bytes()
}
