package clusterrole_test

import (
	"testing"

	"github.com/knarr-dev/knarr/ctrl/clusterrole"
	"github.com/knarr-dev/knarr/ctrl/ctrltest"
)

func TestExamples(t *testing.T) {
	ctrltest.Run(t, clusterrole.Controller, "testdata/*.txtar")
}
