package deployment_test

import (
	"testing"

	"github.com/knarr-dev/knarr/ctrl/ctrltest"
	"github.com/knarr-dev/knarr/ctrl/deployment"
)

func TestExamples(t *testing.T) {
	ctrltest.Run(t, deployment.Controller, "testdata/*.txtar")
}
