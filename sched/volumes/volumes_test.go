package volumes_test

import (
	"testing"

	"github.com/knarr-dev/knarr/sched/schedtest"
	"github.com/knarr-dev/knarr/sched/volumes"
)

func TestExamples(t *testing.T) {
	schedtest.Run(t, "testdata/*.txtar", volumes.Restrictions, volumes.Limits, volumes.Binding, volumes.Zone)
}
