package disruption_test

import (
	"testing"

	"github.com/knarr-dev/knarr/ctrl/ctrltest"
	"github.com/knarr-dev/knarr/ctrl/disruption"
)

func TestExamples(t *testing.T) { ctrltest.Run(t, disruption.Controller, "testdata/*.txtar") }

func TestStale(t *testing.T) { ctrltest.Run(t, disruption.Stale, "testdata/stale/*.txtar") }
