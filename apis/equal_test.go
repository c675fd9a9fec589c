package apis_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/knarr-dev/knarr/apis"
)

// TestEqual holds Equal to what equality says, whether it looks at the
// encoding or not.
func TestEqual(t *testing.T) {
	with := func(cpu string) *corev1.ResourceRequirements {
		return &corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}}
	}
	for name, c := range map[string]struct {
		a, b any
		want bool
	}{
		"the same":            {with("1"), with("1"), true},
		"written otherwise":   {with("1"), with("1000m"), true},
		"as long":             {with("1"), with("2"), false},
		"longer":              {with("1"), with("10"), false},
		"nothing and empty":   {&corev1.PodSpec{}, &corev1.PodSpec{Containers: []corev1.Container{}}, true},
		"nothing and one":     {&corev1.PodSpec{}, &corev1.PodSpec{Containers: []corev1.Container{{}}}, false},
		"zero and none":       {&corev1.PodSpec{Priority: new(int32)}, &corev1.PodSpec{}, false},
		"of different types":  {&corev1.PodSpec{}, &corev1.PodStatus{}, false},
		"values, no pointers": {corev1.PodSpec{NodeName: "a"}, corev1.PodSpec{NodeName: "a"}, true},
		"no messages":         {[]any{"a", 1}, []any{"a", 1}, true},
	} {
		if got := apis.Equal(c.a, c.b); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
