package nodelifecycle_test

import (
	"testing"

	"github.com/knarr-dev/knarr/ctrl/ctrltest"
	"github.com/knarr-dev/knarr/ctrl/nodelifecycle"
)

func TestExamples(t *testing.T) {
	ctrltest.Run(t, nodelifecycle.Controller, "testdata/node-*.txtar")
	ctrltest.Run(t, nodelifecycle.Evictor, "testdata/zone-*.txtar")
}
