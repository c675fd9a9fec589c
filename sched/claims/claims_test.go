package claims_test

import (
	"testing"

	"github.com/knarr-dev/knarr/sched/claims"
	"github.com/knarr-dev/knarr/sched/schedtest"
)

func TestExamples(t *testing.T) {
	schedtest.Run(t, "testdata/*.txtar", claims.Plugin)
}
