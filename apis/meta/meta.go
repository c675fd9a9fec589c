// Package meta holds the rules that many kinds share: what a status
// subresource is, how containers print, and what pod templates, selectors,
// names and quantities may be. The kinds themselves are in the packages of
// their groups.
package meta

import (
	"reflect"

	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
)

// Status is the subresource through which a controller reports. It keeps the
// spec, and what else is named.
func Status[T apis.Object](validate func(obj, old T) field.ErrorList, keeps ...string) apis.Sub[T] {
	return apis.Sub[T]{
		Name:     "status",
		Keeps:    append([]string{"spec"}, keeps...),
		Prepare:  func(_, _ T) {},
		Validate: validate,
		Warn:     func(_, _ T) []string { return nil },
	}
}

// KeepStatus is the Prepare of a kind whose status is written only through
// its subresource: it starts empty and an update does not touch it. The
// status is shared with old, not copied.
func KeepStatus[T apis.Object](obj, old T) {
	status := reflect.ValueOf(obj).Elem().FieldByName("Status")
	if was := reflect.ValueOf(old); was.IsNil() {
		status.SetZero()
	} else {
		status.Set(was.Elem().FieldByName("Status"))
	}
}

// Wanted is the number that replicas points to, made where there is none.
func Wanted(replicas **int32) *int32 {
	if *replicas == nil {
		*replicas = new(int32)
	}
	return *replicas
}

// Diff shows what differs where something may not.
func Diff(was, now any) string { return diff.Diff(was, now) }
