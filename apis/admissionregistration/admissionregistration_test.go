package admissionregistration_test

import (
	_ "embed"
	"testing"

	"github.com/knarr-dev/knarr/apis/admissionregistration"
	"github.com/knarr-dev/knarr/apis/kindtest"
)

//go:embed testdata/kinds.yaml
var kinds string

func TestKinds(t *testing.T) { kindtest.Run(t, admissionregistration.Group, kinds) }
