package protection_test

import (
	"testing"

	"github.com/knarr-dev/knarr/ctrl/ctrltest"
	"github.com/knarr-dev/knarr/ctrl/protection"
)

func TestClaims(t *testing.T)  { ctrltest.Run(t, protection.Claims, "testdata/claim*.txtar") }
func TestVolumes(t *testing.T) { ctrltest.Run(t, protection.Volumes, "testdata/volume*.txtar") }
func TestClasses(t *testing.T) { ctrltest.Run(t, protection.Classes, "testdata/class*.txtar") }
