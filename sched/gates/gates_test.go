package gates_test

import (
	"testing"

	"github.com/knarr-dev/knarr/sched/gates"
	"github.com/knarr-dev/knarr/sched/schedtest"
)

func TestExamples(t *testing.T) {
	schedtest.Run(t, "testdata/*.txtar", gates.Plugin)
}
