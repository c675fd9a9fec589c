package serviceaccount_test

import (
	"testing"

	"github.com/knarr-dev/knarr/ctrl/ctrltest"
	"github.com/knarr-dev/knarr/ctrl/serviceaccount"
)

func TestExamples(t *testing.T) {
	ctrltest.Run(t, serviceaccount.Controller, "testdata/*.txtar")
}
