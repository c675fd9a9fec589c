package rootca_test

import (
	"testing"

	"github.com/knarr-dev/knarr/ctrl/ctrltest"
	"github.com/knarr-dev/knarr/ctrl/rootca"
)

func TestExamples(t *testing.T) {
	ctrltest.Run(t, rootca.New(func() string { return "PEM" }), "testdata/*.txtar")
}
