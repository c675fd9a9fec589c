package cronjob_test

import (
	"testing"

	"github.com/knarr-dev/knarr/ctrl/cronjob"
	"github.com/knarr-dev/knarr/ctrl/ctrltest"
)

func TestExamples(t *testing.T) {
	ctrltest.Run(t, cronjob.Controller, "testdata/*.txtar")
}
