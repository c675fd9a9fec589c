package interpod_test

import (
	"testing"

	"github.com/knarr-dev/knarr/sched/interpod"
	"github.com/knarr-dev/knarr/sched/schedtest"
)

func TestExamples(t *testing.T) {
	schedtest.Run(t, "testdata/*.txtar", interpod.Plugin)
}
