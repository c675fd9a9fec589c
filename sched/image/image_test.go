package image_test

import (
	"testing"

	"github.com/knarr-dev/knarr/sched/image"
	"github.com/knarr-dev/knarr/sched/schedtest"
)

func TestExamples(t *testing.T) {
	schedtest.Run(t, "testdata/*.txtar", image.Plugin)
}
