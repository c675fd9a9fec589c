package podgc_test

import (
	"testing"

	"github.com/knarr-dev/knarr/ctrl/ctrltest"
	"github.com/knarr-dev/knarr/ctrl/podgc"
)

func TestExamples(t *testing.T) {
	ctrltest.Run(t, podgc.New(2), "testdata/*.txtar")
}
