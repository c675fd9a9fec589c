package servicecidr_test

import (
	"testing"

	"github.com/knarr-dev/knarr/ctrl/ctrltest"
	"github.com/knarr-dev/knarr/ctrl/servicecidr"
)

func TestExamples(t *testing.T) {
	ctrltest.Run(t, servicecidr.Controller, "testdata/*.txtar")
}
