package tainteviction_test

import (
	"testing"

	"github.com/knarr-dev/knarr/ctrl/ctrltest"
	"github.com/knarr-dev/knarr/ctrl/tainteviction"
)

func TestExamples(t *testing.T) {
	ctrltest.Run(t, tainteviction.Controller, "testdata/*.txtar")
}
