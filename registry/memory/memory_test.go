package memory_test

import (
	"testing"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/memory"
	"github.com/knarr-dev/knarr/registry/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) registry.Store { return memory.New() })
}
