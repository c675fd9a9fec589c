package replicaset_test

import (
	"testing"

	"github.com/knarr-dev/knarr/ctrl/ctrltest"
	"github.com/knarr-dev/knarr/ctrl/replicaset"
)

func TestExamples(t *testing.T) {
	ctrltest.Run(t, replicaset.Controller, "testdata/rs-*.txtar")
	ctrltest.Run(t, replicaset.RC, "testdata/rc-*.txtar")
}
