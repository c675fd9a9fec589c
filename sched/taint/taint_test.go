package taint_test

import (
	"testing"

	"github.com/knarr-dev/knarr/sched/schedtest"
	"github.com/knarr-dev/knarr/sched/taint"
)

func TestExamples(t *testing.T) {
	schedtest.Run(t, "testdata/*.txtar", taint.Plugin)
}
