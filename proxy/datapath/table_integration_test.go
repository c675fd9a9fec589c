//go:build integration

package datapath

import (
	"testing"

	"github.com/knarr-dev/knarr/proxy/lb"
	"github.com/knarr-dev/knarr/proxy/lbtest"
	"github.com/knarr-dev/knarr/proxy/proxytest"
)

func open(tb testing.TB, cfg Config) *Datapath {
	tb.Helper()
	d, err := Open(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := d.Close(); err != nil {
			tb.Error(err)
		}
	})
	return d
}

// TestMaps runs the suite of lb.Maps on those of the kernel.
func TestMaps(t *testing.T) {
	lbtest.Test(t, func(t *testing.T) lb.Maps { return open(t, Config{Dir: proxytest.PinDir(t)}) }, nil)
}
