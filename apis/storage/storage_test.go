package storage_test

import (
	_ "embed"
	"testing"

	"github.com/knarr-dev/knarr/apis/kindtest"
	"github.com/knarr-dev/knarr/apis/storage"
)

//go:embed testdata/kinds.yaml
var kinds string

func TestKinds(t *testing.T) { kindtest.Run(t, storage.Group, kinds) }
