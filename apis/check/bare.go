package check

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
)

// Bare shows a struct in a message as upstream does: with all fields, set or
// not, under the names they have in Go. Types of the machinery, which has but
// one of each, are shown as clients know them.
func Bare(v any) any { return json.RawMessage(bare(reflect.ValueOf(v))) }

func bare(v reflect.Value) []byte {
	_, own := v.Interface().(json.Marshaler)
	own = own || strings.HasPrefix(v.Type().PkgPath(), "k8s.io/apimachinery/")
	if own || v.Kind() != reflect.Struct && v.Kind() != reflect.Pointer && v.Kind() != reflect.Slice {
		out, _ := json.Marshal(v.Interface())
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
			if i > 0 {
				out.WriteByte(',')
			}
			out.WriteString(`"` + v.Type().Field(i).Name + `":`)
			out.Write(bare(v.Field(i)))
		}
		out.WriteByte('}')
	}
	return out.Bytes()
}
