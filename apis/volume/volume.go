// Package volume says what the storage of pods may be: the sources that a pod
// or a persistent volume names, and the claims that ask for a volume.
package volume

import (
	"reflect"

	"github.com/knarr-dev/knarr/apis/check"
)

// A source is one of the fields of which a volume has exactly one.
type source[V any] struct {
	name  string
	set   func(v *V) bool
	check func(at check.At, v *V)
	also  bool // may stand beside another
}

// of makes a source of the field that get finds. The rule gets the place of
// the volume, and calls the field by the name that errors have for it.
func of[V, S any](name string, get func(v *V) *S, rule func(at check.At, s *S)) source[V] {
	return source[V]{
		name:  name,
		set:   func(v *V) bool { return get(v) != nil },
		check: func(at check.At, v *V) { rule(at, get(v)) },
	}
}

// exactlyOne checks the first source that v has, and forbids all others.
func exactlyOne[V any](at check.At, v *V, sources []source[V]) {
	found := false
	for _, s := range sources {
		if !s.set(v) {
			continue
		}
		if found && !s.also {
			at.Dot(s.name).Forbidden("may not specify more than 1 volume type")
			continue
		}
		found = true
		s.check(at, v)
	}
	if !found {
		at.Required("must specify a volume type")
	}
}

// need makes the rule that certain fields must be set. They are named as in
// JSON, at the place called path.
func need[S any](path string, fields ...string) func(at check.At, s *S) {
	typ := reflect.TypeFor[S]()
	index := map[string]int{}
	for i := range typ.NumField() {
		index[jsonName(typ.Field(i))] = i
	}
	return func(at check.At, s *S) {
		for _, f := range fields {
			if v := reflect.ValueOf(s).Elem().Field(index[f]); v.Kind() == reflect.Slice && v.Len() == 0 || v.IsZero() {
				at.Dot(path).Dot(f).Required("")
			}
		}
	}
}

func jsonName(f reflect.StructField) string {
	tag := f.Tag.Get("json")
	for i := range tag {
		if tag[i] == ',' {
			return tag[:i]
		}
	}
	return tag
}

// then is several rules, one after the other.
func then[S any](rules ...func(at check.At, s *S)) func(at check.At, s *S) {
	return func(at check.At, s *S) {
		for _, rule := range rules {
			rule(at, s)
		}
	}
}
