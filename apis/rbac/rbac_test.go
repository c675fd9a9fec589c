package rbac_test

import (
	_ "embed"
	"testing"

	"github.com/knarr-dev/knarr/apis/kindtest"
	"github.com/knarr-dev/knarr/apis/rbac"
)

//go:embed testdata/kinds.yaml
var kinds string

func TestKinds(t *testing.T) { kindtest.Run(t, rbac.Group, kinds) }
