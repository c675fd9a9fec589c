package affinity_test

import (
	"testing"

	"github.com/knarr-dev/knarr/sched/affinity"
	"github.com/knarr-dev/knarr/sched/schedtest"
)

func TestExamples(t *testing.T) {
	schedtest.Run(t, "testdata/*.txtar", affinity.Plugin)
}
