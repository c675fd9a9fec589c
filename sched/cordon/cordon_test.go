package cordon_test

import (
	"testing"

	"github.com/knarr-dev/knarr/sched/cordon"
	"github.com/knarr-dev/knarr/sched/schedtest"
)

func TestExamples(t *testing.T) {
	schedtest.Run(t, "testdata/*.txtar", cordon.Plugin)
}
