package endpoints_test

import (
	"testing"

	"github.com/knarr-dev/knarr/ctrl/ctrltest"
	"github.com/knarr-dev/knarr/ctrl/endpoints"
)

func TestExamples(t *testing.T) {
	ctrltest.Run(t, endpoints.Controller, "testdata/*.txtar")
}
