package meta

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis"
)

// ContainerColumns are the wide columns of a kind that makes pods.
func ContainerColumns[T apis.Object](spec func(obj T) *corev1.PodSpec) []apis.Column[T] {
	return []apis.Column[T]{
		{Name: "Containers", Wide: true, Cell: func(obj T, _ time.Time) any {
			return join(spec(obj).Containers, func(c corev1.Container) string { return c.Name })
		}},
		{Name: "Images", Wide: true, Cell: func(obj T, _ time.Time) any {
			return join(spec(obj).Containers, func(c corev1.Container) string { return c.Image })
		}},
	}
}

func join[T any](all []T, part func(T) string) string {
	parts := make([]string, len(all))
	for i := range all {
		parts[i] = part(all[i])
	}
	return strings.Join(parts, ",")
}

// Some is the first few of a list, and how many more there are.
func Some(list []string, few int) string {
	if len(list) > few {
		return fmt.Sprintf("%s + %d more...", strings.Join(list[:few], ","), len(list)-few)
	}
	return strings.Join(list, ",")
}

// Or is s, or what to print where there is none.
func Or(s, none string) string {
	if s == "" {
		return none
	}
	return s
}

// Deref is what p points to, or otherwise.
func Deref[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

// WorkloadColumns are ContainerColumns and the selector.
func WorkloadColumns[T apis.Object](spec func(obj T) *corev1.PodSpec, selector func(obj T) string) []apis.Column[T] {
	return append(ContainerColumns(spec), apis.Column[T]{
		Name: "Selector", Wide: true, Cell: func(obj T, _ time.Time) any { return selector(obj) },
	})
}

// Tristate is what a flag says, or that it says nothing.
func Tristate(flag *bool) string {
	switch {
	case flag == nil:
		return "<unset>"
	case *flag:
		return "True"
	}
	return "False"
}
