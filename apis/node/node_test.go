package node_test

import (
	_ "embed"
	"testing"

	"github.com/knarr-dev/knarr/apis/kindtest"
	"github.com/knarr-dev/knarr/apis/node"
)

//go:embed testdata/kinds.yaml
var kinds string

func TestKinds(t *testing.T) { kindtest.Run(t, node.Group, kinds) }
