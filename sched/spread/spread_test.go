package spread_test

import (
	"testing"

	"github.com/knarr-dev/knarr/sched/schedtest"
	"github.com/knarr-dev/knarr/sched/spread"
)

func TestExamples(t *testing.T) {
	schedtest.Run(t, "testdata/*.txtar", spread.Plugin)
}
