package lbtest_test

import (
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/knarr-dev/knarr/proxy/lb"
	"github.com/knarr-dev/knarr/proxy/lbtest"
)

var update = flag.Bool("update", false, "rewrite the examples")

func TestMemory(t *testing.T) {
	var done func(t *testing.T, name string, got []byte)
	if *update {
		done = func(t *testing.T, name string, got []byte) {
			if err := os.WriteFile(filepath.Join("testdata", name), got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	lbtest.Test(t, func(*testing.T) lb.Maps { return lb.NewMemory() }, done)
}

func TestFailingMemory(t *testing.T) {
	lbtest.Test(t, func(*testing.T) lb.Maps {
		return lbtest.Failing{Maps: lb.NewMemory(), Dice: rand.New(rand.NewPCG(5, 6))}
	}, nil)
}
