// Package check collects what is wrong with an object, field by field, in the
// words that clients of Kubernetes know. It holds no rule of any kind; those
// are with the kinds and in package meta.
package check

import (
	"cmp"
	"iter"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// An At is a place in an object. What is found wrong at any place of an
// object goes into one list, in the order in which it is found. The zero At
// is the object itself, and forgets what it is told: begin with New.
type At struct {
	places *[]place // from the object on
	here   int      // in places, counted from 1; 0 is the object
	errs   *field.ErrorList
}

// A place is where one step leads. Most places are only passed, so that they
// are kept in a list, and made paths of where one is asked for.
type place struct {
	from int
	kind step
	name string
	i    int
}

type step byte

const (
	dot step = iota
	index
	key
)

// New is the whole of an object with which nothing is wrong yet.
func New() At {
	places := make([]place, 0, 64)
	return At{places: &places, errs: &field.ErrorList{}}
}

// Errors are what was found, at this place and all others of the object.
func (a At) Errors() field.ErrorList { return *a.errs }

// Path is the place as the library knows it; nil for the object itself.
func (a At) Path() *field.Path {
	if a.here == 0 {
		return nil
	}
	p := (*a.places)[a.here-1]
	up := At{places: a.places, here: p.from}.Path()
	switch p.kind {
	case index:
		return up.Index(p.i)
	case key:
		return up.Key(p.name)
	}
	return up.Child(p.name)
}

func (a At) to(p place) At {
	if a.places == nil {
		places := make([]place, 0, 4)
		a.places = &places
	}
	p.from = a.here
	*a.places = append(*a.places, p)
	a.here = len(*a.places)
	return a
}

// String is how messages name the place.
func (a At) String() string { return a.Path().String() }

// Found tells how much is wrong so far, so that a caller can see whether a
// rule in between held.
func (a At) Found() int { return len(*a.errs) }

// Dot is the field called name, or a.b for a field in a field.
func (a At) Dot(name string) At { return a.to(place{kind: dot, name: name}) }

// Index is an element of a list.
func (a At) Index(i int) At { return a.to(place{kind: index, i: i}) }

// Key is an element of a map.
func (a At) Key(k string) At { return a.to(place{kind: key, name: k}) }

// Aside is the same place of an object with which nothing is wrong, for
// rules whose findings are to be told later, or not at all.
func (a At) Aside() At { return At{a.places, a.here, &field.ErrorList{}} }

// Add tells what a library found.
func (a At) Add(errs ...*field.Error) { *a.errs = append(*a.errs, errs...) }

// Required says that something must be here.
func (a At) Required(detail string) { a.Add(field.Required(a.Path(), detail)) }

// Forbidden says that nothing may be here, or that it may not change.
func (a At) Forbidden(detail string) { a.Add(field.Forbidden(a.Path(), detail)) }

// Invalid says what is wrong with value.
func (a At) Invalid(value any, detail string) { a.Add(field.Invalid(a.Path(), value, detail)) }

// Duplicate says that value stands elsewhere too.
func (a At) Duplicate(value any) { a.Add(field.Duplicate(a.Path(), value)) }

// NotFound says that what value names does not exist.
func (a At) NotFound(value any) { a.Add(field.NotFound(a.Path(), value)) }

// TooLong says that no more than limit bytes may be here.
func (a At) TooLong(limit int) { a.Add(field.TooLong(a.Path(), "", limit)) }

// TooMany says that no more than limit elements may be here.
func (a At) TooMany(count, limit int) { a.Add(field.TooMany(a.Path(), count, limit)) }

// Wrong says each of the things that are wrong with value.
func (a At) Wrong(value any, details []string) {
	for _, detail := range details {
		a.Invalid(value, detail)
	}
}

// Label demands a DNS label.
func (a At) Label(s string) { a.Wrong(s, utilvalidation.IsDNS1123Label(s)) }

// Subdomain demands a DNS subdomain.
func (a At) Subdomain(s string) { a.Wrong(s, utilvalidation.IsDNS1123Subdomain(s)) }

// Qualified demands a name with an optional domain before it.
func (a At) Qualified(s string) { a.Wrong(s, utilvalidation.IsQualifiedName(s)) }

// Present demands a string, and tells whether there is one.
func (a At) Present(s string) bool {
	if s == "" {
		a.Required("")
	}
	return s != ""
}

// Same demands that a value has not changed.
func (a At) Same(now, was any) {
	if !equality.Semantic.DeepEqual(now, was) {
		a.Invalid(now, validation.FieldImmutableErrorMsg)
	}
}

// NonNegative demands a number that is not below zero.
func NonNegative[N int32 | int64](a At, n N) {
	if n < 0 {
		a.Invalid(int64(n), validation.IsNegativeErrorMsg)
	}
}

// NonNegativeIf is NonNegative where there is a number.
func NonNegativeIf[N int32 | int64](a At, n *N) {
	if n != nil {
		NonNegative(a, *n)
	}
}

// AtMost demands a number that is not above another, which what names.
func AtMost[N int32 | int64](a At, n, limit N, what string) {
	if n > limit {
		a.Invalid(n, "cannot be greater than "+what)
	}
}

// Positive demands a number above zero.
func Positive[N int32 | int64](a At, n N) {
	if n <= 0 {
		a.Invalid(int64(n), "must be greater than zero")
	}
}

// Range demands a number from low to high.
func Range[N int32 | int64](a At, n N, low, high int) {
	if int64(n) < int64(low) || int64(n) > int64(high) {
		a.Invalid(n, utilvalidation.InclusiveRangeError(low, high))
	}
}

// OneOf demands that s is one of some values, and tells whether it is.
func OneOf[S ~string](a At, s S, values ...S) bool {
	if slices.Contains(values, s) {
		return true
	}
	values = slices.Clone(values)
	slices.Sort(values)
	return Listed(a, s, values...)
}

// Listed is OneOf where the message is to name the values in their order.
func Listed[S ~string](a At, s S, values ...S) bool {
	if slices.Contains(values, s) {
		return true
	}
	a.Add(field.NotSupported(a.Path(), s, values))
	return false
}

// Unsupported says that s is none of some values, though it may stand among them.
func Unsupported[S ~string](a At, s S, values ...S) { a.Add(field.NotSupported(a.Path(), s, values)) }

// Choice demands one of some values, and says that it is required where it is empty.
func Choice[S ~string](a At, s S, values ...S) bool {
	if s == "" {
		a.Required("")
		return false
	}
	return OneOf(a, s, values...)
}

// ListedChoice is Choice where the message is to name the values in their order.
func ListedChoice[S ~string](a At, s S, values ...S) bool {
	if s == "" {
		a.Required("")
		return false
	}
	return Listed(a, s, values...)
}

// Sorted goes through a map in the order of its keys, so that what is found
// wrong does not depend on chance.
func Sorted[K cmp.Ordered, V any](m map[K]V) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}

// A Set is what has been seen of a list that must not repeat itself.
type Set[T comparable] map[T]bool

// Twice reports whether v was seen before, and remembers it.
func (s Set[T]) Twice(v T) bool {
	was := s[v]
	s[v] = true
	return was
}

// Explain adds a detail to what was said last.
func (a At) Explain(detail string) { (*a.errs)[len(*a.errs)-1].Detail = detail }

// Root is the object as a whole, which messages name by nothing.
func Root(a At) At {
	a.here = 0
	return a.Dot("")
}
