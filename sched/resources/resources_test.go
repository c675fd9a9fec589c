package resources_test

import (
	"testing"

	"github.com/knarr-dev/knarr/sched/resources"
	"github.com/knarr-dev/knarr/sched/schedtest"
)

func TestExamples(t *testing.T) {
	schedtest.Run(t, "testdata/*.txtar", resources.Fit, resources.Balance)
}
