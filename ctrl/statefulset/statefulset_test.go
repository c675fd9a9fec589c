package statefulset_test

import (
	"testing"

	"github.com/knarr-dev/knarr/ctrl/ctrltest"
	"github.com/knarr-dev/knarr/ctrl/statefulset"
)

func TestExamples(t *testing.T) {
	ctrltest.Run(t, statefulset.Controller, "testdata/*.txtar")
}
