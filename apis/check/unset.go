package check

import (
	"reflect"
	"slices"
	"unicode"
)

// Unset forbids every field of the struct that v points to but those named in
// may. Fields are named as in Go.
func Unset(at At, v any, detail string, may ...string) {
	s := reflect.ValueOf(v).Elem()
	for i := range s.NumField() {
		name := s.Type().Field(i).Name
		if s.Field(i).IsZero() || slices.Contains(may, name) {
			continue
		}
		runes := []rune(name)
		runes[0] = unicode.ToLower(runes[0])
		at.Dot(string(runes)).Forbidden(detail)
	}
}
