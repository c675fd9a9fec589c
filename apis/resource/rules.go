package resource

import (
	"fmt"
	"regexp"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/volume"
)

// list checks each element of a list that has at most some. Of a longer one
// nothing more is looked at.
func list[T any](at check.At, all []T, most int, one func(at check.At, v *T)) bool {
	if len(all) > most {
		at.TooMany(len(all), most)
		return false
	}
	for i := range all {
		one(at.Index(i), &all[i])
	}
	return true
}

// set is list where no two elements have the same key.
func set[T any, K comparable](at check.At, all []T, most int, key func(v *T) K, one func(at check.At, v *T)) {
	if !list(at, all, most, one) {
		return
	}
	seen := check.Set[K]{}
	for i := range all {
		if k := key(&all[i]); seen.Twice(k) {
			at.Index(i).Duplicate(k)
		}
	}
}

func itself(s *string) string { return *s }

// keyed checks each entry of a map. What is wrong with a key is told at the
// map; keys are shortened where they name entries.
func keyed[K ~string, V any](at check.At, all map[K]V, longest int, key func(at check.At, k K), one func(at check.At, v V)) {
	for k, v := range check.Sorted(all) {
		key(at, k)
		one(at.Key(short(string(k), longest)), v)
	}
}

func short(s string, longest int) string {
	if len(s) <= longest {
		return s
	}
	keep := longest - len("...")
	return s[:(keep+1)/2] + "..." + s[len(s)-keep/2:]
}

func poolName(at check.At, name string) {
	if !at.Present(name) {
		return
	}
	if len(name) > resourcev1.PoolNameMaxLength {
		at.TooLong(resourcev1.PoolNameMaxLength)
	}
	for part := range strings.SplitSeq(name, "/") {
		at.Subdomain(part)
	}
}

// maxKey is the longest name of an attribute or a capacity.
const maxKey = resourcev1.DeviceMaxDomainLength + 1 + resourcev1.DeviceMaxIDLength

// qualifiedName demands an identifier, with a domain or without. As upstream:
// one with more slashes is not looked at.
func qualifiedName(at check.At, name resourcev1.QualifiedName) {
	domain, id, qualified := strings.Cut(string(name), "/")
	switch {
	case strings.Count(string(name), "/") > 1:
	case !qualified:
		identifier(at, domain)
	default:
		if domain == "" {
			at.Invalid("", "the domain must not be empty")
		} else {
			volume.Driver(at, domain)
		}
		if id == "" {
			at.Invalid("", "the name must not be empty")
		} else {
			identifier(at, id)
		}
	}
}

func fullyQualifiedName(at check.At, name resourcev1.FullyQualifiedName) {
	qualifiedName(at, resourcev1.QualifiedName(name))
	if !strings.Contains(string(name), "/") {
		at.Invalid(name, "a fully qualified name must be a domain and a name separated by a slash")
	}
}

func identifier(at check.At, id string) {
	if len(id) > resourcev1.DeviceMaxIDLength {
		at.TooLong(resourcev1.DeviceMaxIDLength)
	}
	at.Wrong(id, utilvalidation.IsCIdentifier(id))
}

func labelValue(at check.At, v string) { at.Wrong(v, utilvalidation.IsValidLabelValue(v)) }

// effect demands what becomes of pods that do not tolerate a taint.
func effect(at check.At, e resourcev1.DeviceTaintEffect) {
	check.OneOf(at, e, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNone)
}

// bindings checks conditions that a device meets, or not, before a pod is
// bound. Who has one sort has the other.
func bindings(at check.At, good, bad []string) {
	goods, bads := at.Dot("bindingConditions"), at.Dot("bindingFailureConditions")
	name := func(at check.At, s *string) { meta.LabelName(at, *s) }
	list(goods, good, resourcev1.BindingConditionsMaxSize, name)
	list(bads, bad, resourcev1.BindingFailureConditionsMaxSize, name)
	met, failed := check.Set[string]{}, check.Set[string]{}
	for i, c := range good {
		if met.Twice(c) {
			goods.Index(i).Duplicate(c)
		}
	}
	for i, c := range bad {
		if failed.Twice(c) {
			bads.Index(i).Duplicate(c)
		}
		if met[c] {
			bads.Index(i).Invalid(c, "bindingFailureConditions must not overlap with bindingConditions")
		}
	}
	if len(good) == 0 && len(bad) > 0 {
		goods.Invalid(good, "bindingConditions are required to use bindingFailureConditions")
	}
	if len(bad) == 0 && len(good) > 0 {
		bads.Invalid(bad, "bindingFailureConditions are required to use bindingConditions")
	}
}

// only demands that one of some fields is set, as the caller has found.
func only(at check.At, set []string, none, several string) {
	switch len(set) {
	case 0:
		at.Required(none)
	case 1:
	default:
		at.Invalid(fmt.Sprintf("{%s}", strings.Join(set, ", ")), several)
	}
}

// Versions are as semver.org has them.
var version = func() *regexp.Regexp {
	const number, word, build = `(0|[1-9]\d*)`, `(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)`, `[0-9a-zA-Z-]+`
	return regexp.MustCompile(`^` + number + `\.` + number + `\.` + number +
		`(-` + word + `(\.` + word + `)*)?` + `(\+` + build + `(\.` + build + `)*)?$`)
}()
