package certificates_test

import (
	_ "embed"
	"testing"

	"github.com/knarr-dev/knarr/apis/certificates"
	"github.com/knarr-dev/knarr/apis/kindtest"
)

//go:embed testdata/kinds.yaml
var kinds string

func TestKinds(t *testing.T) { kindtest.Run(t, certificates.Group, kinds) }
