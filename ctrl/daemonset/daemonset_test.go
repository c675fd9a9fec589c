package daemonset_test

import (
	"testing"

	"github.com/knarr-dev/knarr/ctrl/ctrltest"
	"github.com/knarr-dev/knarr/ctrl/daemonset"
)

func TestExamples(t *testing.T) {
	ctrltest.Run(t, daemonset.Controller, "testdata/*.txtar")
}
