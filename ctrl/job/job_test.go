package job_test

import (
	"testing"

	"github.com/knarr-dev/knarr/ctrl/ctrltest"
	"github.com/knarr-dev/knarr/ctrl/job"
)

func TestExamples(t *testing.T) {
	ctrltest.Run(t, job.Controller, "testdata/job-*.txtar")
	ctrltest.Run(t, job.Orphans, "testdata/orphan-*.txtar")
}
