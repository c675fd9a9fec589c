package quota_test

import (
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/ctrl/ctrltest"
	"github.com/knarr-dev/knarr/ctrl/quota"
)

// counts says that every namespace has three config maps and a knot.
func counts(all bool) quota.Counts {
	return func(string) (map[schema.GroupResource]int, bool) {
		return map[schema.GroupResource]int{
			{Resource: "configmaps"}:                  3,
			{Group: "apps", Resource: "deployments"}:  0,
			{Group: "example.com", Resource: "knots"}: 1,
		}, all
	}
}

func TestExamples(t *testing.T) { ctrltest.Run(t, quota.New(counts(true)), "testdata/*.txtar") }

func TestUnlisted(t *testing.T) {
	ctrltest.Run(t, quota.New(counts(false)), "testdata/unlisted/*.txtar")
}
