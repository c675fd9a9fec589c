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
	path *field.Path
	errs *field.ErrorList
}

// New is the whole of an object with which nothing is wrong yet.
func New() At { return At{errs: &field.ErrorList{}} }

// Errors are what was found, at this place and all others of the object.
func (a At) Errors() field.ErrorList { return *a.errs }

// Path is the place as the library knows it; nil for the object itself.
func (a At) Path() *field.Path { return a.path }

// String is how messages name the place.
func (a At) String() string { return a.path.String() }

// Found tells how much is wrong so far, so that a caller can see whether a
// rule in between held.
func (a At) Found() int { return len(*a.errs) }

// Dot is the field called name, or a.b for a field in a field.
func (a At) Dot(name string) At { return At{a.path.Child(name), a.errs} }

// Index is an element of a list.
func (a At) Index(i int) At { return At{a.path.Index(i), a.errs} }

// Key is an element of a map.
func (a At) Key(k string) At { return At{a.path.Key(k), a.errs} }

// Aside is the same place of an object with which nothing is wrong, for
// rules whose findings are to be told later, or not at all.
func (a At) Aside() At { return At{a.path, &field.ErrorList{}} }

// Add tells what a library found.
func (a At) Add(errs ...*field.Error) { *a.errs = append(*a.errs, errs...) }

// Required says that something must be here.
func (a At) Required(detail string) { a.Add(field.Required(a.path, detail)) }

// Forbidden says that nothing may be here, or that it may not change.
func (a At) Forbidden(detail string) { a.Add(field.Forbidden(a.path, detail)) }

// Invalid says what is wrong with value.
func (a At) Invalid(value any, detail string) { a.Add(field.Invalid(a.path, value, detail)) }

// Duplicate says that value stands elsewhere too.
func (a At) Duplicate(value any) { a.Add(field.Duplicate(a.path, value)) }

// NotFound says that what value names does not exist.
func (a At) NotFound(value any) { a.Add(field.NotFound(a.path, value)) }

// TooLong says that no more than limit bytes may be here.
func (a At) TooLong(limit int) { a.Add(field.TooLong(a.path, "", limit)) }

// TooMany says that no more than limit elements may be here.
func (a At) TooMany(count, limit int) { a.Add(field.TooMany(a.path, count, limit)) }

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
	a.Add(field.NotSupported(a.path, s, values))
	return false
}

// Unsupported says that s is none of some values, though it may stand among them.
func Unsupported[S ~string](a At, s S, values ...S) { a.Add(field.NotSupported(a.path, s, values)) }

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
func Root(a At) At { return At{field.NewPath(""), a.errs} }
