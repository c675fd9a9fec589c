package ports_test

import (
	"testing"

	"github.com/knarr-dev/knarr/sched/ports"
	"github.com/knarr-dev/knarr/sched/schedtest"
)

func TestExamples(t *testing.T) {
	schedtest.Run(t, "testdata/*.txtar", ports.Plugin)
}
