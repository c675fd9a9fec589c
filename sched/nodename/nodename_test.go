package nodename_test

import (
	"testing"

	"github.com/knarr-dev/knarr/sched/nodename"
	"github.com/knarr-dev/knarr/sched/schedtest"
)

func TestExamples(t *testing.T) {
	schedtest.Run(t, "testdata/*.txtar", nodename.Plugin)
}
