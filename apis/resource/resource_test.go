package resource_test

import (
	_ "embed"
	"testing"

	"github.com/knarr-dev/knarr/apis/kindtest"
	"github.com/knarr-dev/knarr/apis/resource"
)

//go:embed testdata/kinds.yaml
var kinds string

func TestKinds(t *testing.T) { kindtest.Run(t, resource.Group, kinds) }
